//! The program with OpenTelemetry's own variables.

use super::{
    chat,
    collector::{Collector, attributes},
};
use crate::{
    app::{self, TestApp},
    suite::{Program, offpeak},
    wire::Caller,
};

/// The last spans are sent before the process ends, however soon that is.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_a_collector_and_a_stop_leaves_nothing_behind() {
    let collector = Collector::start().await;
    // For its provider.
    let other = TestApp::against(app::provider(), &[]).await;
    let kept = tempfile::tempdir().unwrap();
    let mut command = offpeak("serve");
    command
        .args(["--upstream", &format!("http://{}/v1", other.address)])
        .arg("--data-dir")
        .arg(kept.path().join("data"))
        .envs([
            ("OFFPEAK_STORE__RESERVE_BYTES", "0"),
            ("OFFPEAK_LOG", "trace"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=let-me-in"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_SERVICE_NAME", "night-shift"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test",
            ),
        ]);
    let log = kept.path().join("log");
    let mut program = tokio::task::block_in_place(|| Program::start(&mut command, log.clone()));
    let address = program.url.trim_start_matches("http://").parse().unwrap();
    let mut caller = Caller::connect(address).await;
    // Too soon for anything but an ordinary call, at once.
    let soon = "offpeak-deadline: 20s";
    let line = "POST /v1/chat/completions";
    let answer = caller.call(line, &[soon], chat("at once")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    drop(caller);
    let stopped = tokio::task::block_in_place(|| program.stop());
    assert!(stopped, "{}", program.last_words());

    let spans = collector.so_far();
    let [span] = spans.as_slice() else {
        panic!("{spans:?}\n{}", program.last_words());
    };
    let found = attributes(&span.attributes);
    assert_eq!(found["offpeak.lane"], "standard");
    let exports = collector.exports();
    let resource = exports[0].resource_spans[0].resource.as_ref().unwrap();
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "night-shift");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(collector.headers()[0]["x-collector-key"], "let-me-in");
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("TRACE") && !said.contains("let-me-in"));
    other.finish().await;
}
