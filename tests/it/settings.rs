//! The defaults fit the modules that own them: every key that a settings type
//! has, and none that it lacks.

use offpeak::{app::Settings, config::Config};

#[test]
fn every_section_fits_its_owner() {
    let config = Config::defaults().unwrap();
    if let Err(error) = Settings::read(&config) {
        panic!("{error}");
    }
}

#[test]
fn the_four_names_that_others_rely_on() {
    let environment = [
        ("OFFPEAK_PACKING__LINGER", "200ms"),
        ("OFFPEAK_WATCH__POLL_INTERVAL", "200ms"),
        ("OFFPEAK_RESCUE__RESERVE", "2s"),
        ("OFFPEAK_HOLD__DRIP_AFTER", "5s"),
    ];
    let config = Config::load(None, environment, &[]).unwrap();
    let settings = Settings::read(&config).unwrap();
    assert_eq!(settings.engine.packing.linger.as_millis(), 200);
    assert_eq!(settings.engine.watch.poll_interval.as_millis(), 200);
    assert_eq!(settings.engine.rescue.reserve.as_millis(), 2000);
    assert_eq!(settings.edge.hold.drip_after.as_millis(), 5000);
}
