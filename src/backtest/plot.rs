//! A plot of a report, as SVG: what each policy cost, and how soon it answered.

use std::fmt::Write;

use super::{
    report::{Policy, Report},
    tally::{BINS, bin_age},
};

const WIDTH: f64 = 1060.0;
const HEIGHT: f64 = 420.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 370.0;
/// Where the bars begin, and the length of the longest.
const BARS: (f64, f64) = (120.0, 220.0);
/// Left and right end of the curves.
const CURVES: (f64, f64) = (590.0, 1030.0);

/// The policy that is drawn with more weight.
const OURS: &str = "offpeak";

/// By place in the report: apart for colour-blind eyes (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#999999", "#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#0072b2", "#d55e00",
];

/// Ages that are written under the curves, in seconds, as far apart as they are wide.
const MARKS: [(f64, &str); 7] = [
    (10.0, "10 s"),
    (60.0, "1 min"),
    (600.0, "10 min"),
    (3_600.0, "1 h"),
    (14_400.0, "4 h"),
    (43_200.0, "12 h"),
    (172_800.0, "2 d"),
];

pub fn svg(report: &Report) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="#333">
<rect width="100%" height="100%" fill="#fff"/>
<text x="24" y="28" font-size="16" font-weight="600">{}: {} requests, seed {}</text>
<text x="24" y="54" fill="#666">cost, in % of always-live and in dollars</text>
<text x="{}" y="54" fill="#666">share answered, by time since the call (colours as on the left)</text>
"##,
        escaped(&report.workload),
        report.requests,
        report.seed,
        CURVES.0,
    );
    bars(&mut out, report);
    axes(&mut out);
    let curves = report.policies.iter().zip(COLOURS);
    // Ours on top.
    let (ours, others): (Vec<_>, Vec<_>) = curves.partition(|(policy, _)| is_ours(policy));
    for (policy, colour) in others.into_iter().chain(ours) {
        curve(&mut out, policy, report.requests, colour);
    }
    out.push_str("</svg>\n");
    out
}

fn bars(out: &mut String, report: &Report) {
    let cost = |policy: &Policy| policy.cost_usd.as_pico() as f64;
    let most = report.policies.iter().map(cost).fold(1.0, f64::max);
    let ordinary = report.policy("always-live").map_or(most, cost).max(1.0);
    let step = (BOTTOM - TOP) / report.policies.len().max(1) as f64;
    for (place, (policy, colour)) in report.policies.iter().zip(COLOURS).enumerate() {
        let y = TOP + step * place as f64;
        let middle = y + step / 2.0 + 4.0;
        let length = BARS.1 * cost(policy) / most;
        let percent = 100.0 * cost(policy) / ordinary;
        let missed = match policy.missed {
            0 => String::new(),
            missed => format!(", {missed} missed"),
        };
        let weight = if is_ours(policy) { "700" } else { "400" };
        let dollars = dollars(cost(policy) / 1e12);
        let _ = write!(
            out,
            r##"<text x="{}" y="{middle:.1}" text-anchor="end" font-weight="{weight}">{}</text>
<rect x="{}" y="{:.1}" width="{length:.1}" height="{:.1}" rx="3" fill="{colour}"/>
<text x="{:.1}" y="{middle:.1}" font-weight="{weight}">{percent:.1} % ({dollars}){missed}</text>
"##,
            BARS.0 - 8.0,
            policy.name,
            BARS.0,
            y + step * 0.18,
            step * 0.64,
            BARS.0 + length + 6.0,
        );
    }
}

fn axes(out: &mut String) {
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = height(share);
        let _ = writeln!(
            out,
            r##"<line x1="{}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#e3e3e3"/><text x="{}" y="{:.1}" text-anchor="end" fill="#666">{:.0} %</text>"##,
            CURVES.0,
            CURVES.1,
            CURVES.0 - 6.0,
            y + 4.0,
            share * 100.0,
        );
    }
    for (age, words) in MARKS {
        let x = across(age);
        let _ = writeln!(
            out,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{BOTTOM}" y2="{}" stroke="#999"/><text x="{x:.1}" y="{}" text-anchor="middle" fill="#666">{words}</text>"##,
            BOTTOM + 5.0,
            BOTTOM + 20.0,
        );
    }
}

fn curve(out: &mut String, policy: &Policy, requests: usize, colour: &str) {
    let mut answered = 0;
    let mut points = format!("{:.1},{:.1}", across(1.0), height(0.0));
    for bin in 0..BINS {
        answered += policy.ages.get(bin).copied().unwrap_or_default();
        let age = bin_age(bin);
        if age <= MARKS[MARKS.len() - 1].0 {
            let share = answered as f64 / requests.max(1) as f64;
            let _ = writeln!(points, " {:.1},{:.1}", across(age), height(share));
        }
    }
    // What is drawn later is narrower or has gaps, so that equal curves all show.
    let line = match policy.name {
        name if name == OURS => r#"stroke-width="3" stroke-dasharray="9 6""#,
        "clairvoyant" => r#"stroke-width="2" stroke-dasharray="3 4""#,
        "batch-and-hope" => r#"stroke-width="5.5""#,
        "fixed-reserve" => r#"stroke-width="3.5""#,
        _ => r#"stroke-width="1.5""#,
    };
    let _ = writeln!(
        out,
        r##"<polyline points="{points}" fill="none" stroke="{colour}" {line} stroke-linejoin="round"><title>{}</title></polyline>"##,
        policy.name,
    );
}

fn is_ours(policy: &Policy) -> bool {
    policy.name == OURS
}

/// To about four digits.
fn dollars(amount: f64) -> String {
    match amount {
        a if a >= 1000.0 => format!("${a:.0}"),
        a if a >= 1.0 => format!("${a:.2}"),
        a => format!("${a:.4}"),
    }
}

/// Ages stand on a log scale.
fn across(age: f64) -> f64 {
    let longest = MARKS[MARKS.len() - 1].0;
    CURVES.0 + (CURVES.1 - CURVES.0) * age.max(1.0).ln() / longest.ln()
}

fn height(share: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * share
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
