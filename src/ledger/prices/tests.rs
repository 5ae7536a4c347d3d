//! Exact picodollars.

use proptest::prelude::*;

use super::{decimal::per_token, *};

const USAGE: Usage = Usage {
    input: 1000,
    cached: 400,
    cache_write: 0,
    output: 100,
};

fn built_in() -> Prices {
    Prices::built_in().unwrap()
}

fn bill(model: &str, lane: Lane) -> Option<Bill> {
    built_in().bill(model, lane, &USAGE)
}

fn pico(pico: i128) -> Usd {
    Usd::from_pico(pico)
}

#[test]
fn adds_up_to_the_last_picodollar() {
    // 600 × 0.15 + 400 × 0.075 + 100 × 0.60, and 1000 × 0.075 + 100 × 0.30, a million.
    let standard = pico(600 * 150_000 + 400 * 75_000 + 100 * 600_000);
    let batch = pico(1000 * 75_000 + 100 * 300_000);
    assert_eq!(
        bill("gpt-4o-mini", Lane::Standard),
        Some(Bill {
            paid: standard,
            standard
        })
    );
    assert_eq!(
        bill("gpt-4o-mini", Lane::Batch),
        Some(Bill {
            paid: batch,
            standard
        })
    );
    assert_eq!(
        bill("gpt-4o-mini-2024-07-18", Lane::Batch),
        bill("gpt-4o-mini", Lane::Batch)
    );
    assert_eq!(
        bill("claude-haiku-5-5-20261101", Lane::Batch),
        bill("claude-haiku-5-5", Lane::Batch)
    );
}

#[test]
fn every_lane_has_its_price() {
    // 600 × 2 + 400 × 0.5 + 100 × 8, a million; batch and flex are half of it,
    // but only flex has a rate for cached tokens.
    let standard = 2_200_000_000;
    for (lane, paid) in [
        (Lane::Batch, 1000 * 1_000_000 + 100 * 4_000_000),
        (Lane::Flex, standard / 2),
        (Lane::Background8h, standard / 10 * 6),
        (Lane::Background2h, standard / 10 * 7),
        (Lane::Standard, standard),
    ] {
        let (paid, standard) = (pico(paid), pico(standard));
        assert_eq!(bill("o3", lane), Some(Bill { paid, standard }), "{lane}");
    }
    // It is not offered on the flex tier.
    assert_eq!(bill("gpt-4o-mini", Lane::Flex), None);
}

/// WIRE.md §2: standard input and output, and the same in a batch, a million tokens.
#[test]
fn what_is_known_of_the_wire_is_priced_as_there() {
    for (model, standard, batch) in [
        ("gpt-6-luna", ["0.10", "0.50"], ["0.05", "0.25"]),
        ("gpt-6-sol", ["2", "10"], ["1", "5"]),
        ("gpt-5.5", ["5", "30"], ["2.5", "15"]),
        ("gpt-5.4", ["2.5", "15"], ["1.25", "7.5"]),
        ("gpt-4.1", ["2", "8"], ["1", "4"]),
        ("gpt-4o-mini", ["0.15", "0.60"], ["0.075", "0.30"]),
        ("text-embedding-3-small", ["0.02", "0"], ["0.01", "0"]),
        ("gpt-3.5-turbo", ["0.5", "1.5"], ["0.25", "0.75"]),
        ("gpt-3.5-turbo-16k", ["3", "4"], ["1.5", "2"]),
        ("gpt-3.5-turbo-0301", ["1.5", "2"], ["0.75", "1"]),
        ("gpt-3.5-turbo-0613", ["1.5", "2"], ["0.75", "1"]),
        ("gpt-3.5-turbo-1106", ["1", "2"], ["0.5", "1"]),
        ("gpt-3.5-turbo-16k-0613", ["3", "4"], ["1.5", "2"]),
        ("gpt-4", ["30", "60"], ["15", "30"]),
        ("gpt-4-0314", ["30", "60"], ["15", "30"]),
        ("gpt-4-32k", ["60", "120"], ["30", "60"]),
        ("gpt-4-32k-0314", ["60", "120"], ["30", "60"]),
        ("gpt-4-32k-0613", ["60", "120"], ["30", "60"]),
        ("gpt-4-turbo", ["10", "30"], ["5", "15"]),
        ("gpt-4-turbo-preview", ["10", "30"], ["5", "15"]),
        ("gpt-4-turbo-2024-04-09", ["10", "30"], ["5", "15"]),
    ] {
        let usage = Usage {
            input: 7,
            output: 3,
            ..Usage::default()
        };
        let costs = |[input, output]: [&str; 2]| {
            per_token(input).unwrap().times(7) + per_token(output).unwrap().times(3)
        };
        let (paid, standard) = (costs(batch), costs(standard));
        let bill = built_in().bill(model, Lane::Batch, &usage);
        assert_eq!(bill, Some(Bill { paid, standard }), "{model}");
    }
}

/// Of gpt-4.x, o3 and o4-mini.
#[test]
fn cached_tokens_have_no_rate_in_batches_of_older_models() {
    for model in [
        "gpt-4.1",
        "gpt-4.1-mini",
        "gpt-4o",
        "gpt-4o-mini",
        "o3",
        "o4-mini",
    ] {
        let with = |cached| {
            let usage = Usage { cached, ..USAGE };
            built_in().bill(model, Lane::Batch, &usage).unwrap()
        };
        assert_eq!(with(0).paid, with(1000).paid, "{model}");
        assert!(with(0).standard > with(1000).standard, "{model}");
    }
}

const OWN: &str = r#"
updated = "2026-11-28"
[background]
"8h" = "0.6"
"2h" = "0.7"
[models."m"]
standard = { input = "1", cached_input = "0.1", cache_write = "1.25", cache_write_long = "2", output = "8" }
batch = { input = "0.5", cache_write = "0.625", output = "4" }
priority = { input = "3", output = "24" }
long.above = 1000
long.standard = { input = "2", cached_input = "0.2", cache_write = "2.5", output = "12" }
long.batch = { input = "1", cached_input = "0.3", output = "6" }
"#;

#[test]
fn every_kind_of_token_has_its_rate() {
    let prices = Prices::parse(OWN).unwrap();
    let metered = |input, tier, long_kept| Metered {
        usage: Usage {
            input,
            cached: 400,
            cache_write: 100,
            output: 10,
        },
        long_kept,
        known: true,
        tier,
        ..Metered::default()
    };
    use Lane::{Background8h, Batch, Flex, Standard};
    use Tier::{Default, Priority, Scale};
    let usual = 500_000_000 + 40_000_000 + 125_000_000 + 80_000_000;
    let kept = usual + 60 * (2_000_000 - 1_250_000);
    let long = 501 * 2_000_000 + 400 * 200_000 + 100 * 2_500_000 + 120_000_000;
    for (lane, (input, tier, long_kept), expected) in [
        (Standard, (1000, Default, 0), Some((usual, usual))),
        (Standard, (1000, Default, 60), Some((kept, kept))),
        // More cannot be kept than was written.
        (
            Standard,
            (1000, Default, 999),
            Some((usual + 100 * 750_000, usual + 100 * 750_000)),
        ),
        (
            Background8h,
            (1000, Default, 0),
            Some((usual * 6 / 10, usual)),
        ),
        // Without a rate of their own, cached tokens cost what others do.
        (
            Batch,
            (1000, Default, 0),
            Some((900 * 500_000 + 100 * 625_000 + 40_000_000, usual)),
        ),
        // What it costs to keep them there is not known.
        (Batch, (1000, Default, 1), None),
        (Standard, (1000, Priority, 0), Some((3_240_000_000, usual))),
        // A line's tier is none.
        (
            Batch,
            (1000, Priority, 0),
            Some((900 * 500_000 + 100 * 625_000 + 40_000_000, usual)),
        ),
        (Standard, (1000, Scale, 0), None),
        (Flex, (1000, Tier::Flex, 0), None),
        // Asked for flex, and served as usual.
        (Flex, (1000, Default, 0), Some((usual, usual))),
        // One token more, and all of them are dearer.
        (Standard, (1001, Default, 0), Some((long, long))),
        (
            Batch,
            (1001, Default, 0),
            Some((
                501 * 1_000_000 + 400 * 300_000 + 100 * 1_000_000 + 60_000_000,
                long,
            )),
        ),
        (Standard, (1001, Priority, 0), None),
        (Standard, (1001, Default, 1), None),
    ] {
        let bill = prices.bill_of("m", lane, &metered(input, tier, long_kept));
        let expected = expected.map(|(paid, standard)| Bill {
            paid: pico(paid),
            standard: pico(standard),
        });
        assert_eq!(bill, expected, "{lane} {input} {tier:?} {long_kept}");
    }
    let known = metered(1000, Default, 0);
    for unknown in [
        Metered {
            known: false,
            ..known.clone()
        },
        Metered {
            sound: true,
            ..known
        },
    ] {
        assert_eq!(prices.bill_of("m", Standard, &unknown), None);
    }
}

#[test]
fn what_costs_nothing_needs_no_count_of_its_tokens() {
    let prices = Prices::built_in().unwrap();
    let untold = Metered {
        known: false,
        ..Metered::default()
    };
    let nothing = Some(Bill::default());
    let bill = |model| prices.bill_of(model, Lane::Standard, &untold);
    assert_eq!(bill("omni-moderation-latest"), nothing);
    assert_eq!(bill("text-embedding-3-small"), None);
}

/// A provider that counts more cached tokens than tokens is not paid for it.
#[test]
fn parts_are_never_more_than_the_whole() {
    let prices = Prices::parse(OWN).unwrap();
    let paid = |cached, cache_write| {
        let usage = Usage {
            input: 10,
            cached,
            cache_write,
            output: 0,
        };
        prices.bill("m", Lane::Standard, &usage).unwrap().paid
    };
    assert_eq!(paid(u64::MAX, u64::MAX), pico(10 * 100_000));
    assert_eq!(paid(4, u64::MAX), pico(4 * 100_000 + 6 * 1_250_000));
}

#[test]
fn no_lane_is_dearer_than_standard() {
    let prices = built_in();
    assert!(prices.models.len() > 150);
    for name in prices.models.keys() {
        for lane in Lane::ALL {
            for input in [1_000, 300_000] {
                let usage = Usage {
                    input,
                    cached: 0,
                    ..USAGE
                };
                let Some(bill) = prices.bill(name, lane, &usage) else {
                    assert!(lane == Lane::Batch || lane == Lane::Flex, "{name} {lane}");
                    continue;
                };
                assert!(bill.paid <= bill.standard, "{name} {lane}");
            }
        }
    }
}

#[test]
fn an_unknown_model_has_no_price() {
    assert_eq!(bill("gpt-4o-mini-x", Lane::Batch), None);
    assert_eq!(bill("ft:gpt-4o-mini-2024-07-18:acme::1", Lane::Batch), None);
    assert_eq!(bill("é-2024-07-18", Lane::Batch), None);
    assert_eq!(bill("2024-07-18", Lane::Batch), None);
}

#[test]
fn what_has_no_price_is_reckoned_as_the_dearest() {
    let prices = built_in();
    for input in [1_000, 300_000] {
        let usage = Usage { input, ..USAGE };
        let dearest = prices.dearest(&usage);
        let all = prices.models.keys();
        let all: Vec<Usd> = all
            .map(|name| prices.bill(name, Lane::Standard, &usage).unwrap().paid)
            .collect();
        assert_eq!(all.iter().max(), Some(&dearest));
    }
}

#[test]
fn what_a_lane_has_no_price_for_is_reckoned_at_the_models_own() {
    let dear = "[models.\"dear\"]\nstandard = { input = \"100\", output = \"1000\" }\n";
    let prices = Prices::parse(&format!("{OWN}{dear}")).unwrap();
    let of = |input: u64, tier| Metered {
        usage: Usage {
            input,
            cached: 400,
            cache_write: 100,
            output: 10,
        },
        known: true,
        tier,
        ..Metered::default()
    };
    use Lane::{Batch, Flex, Standard};
    let long_kept = |metered| Metered {
        long_kept: 60,
        ..metered
    };
    // None of it cached, and what is written at the rate of that.
    let own = 900_000_000 + 125_000_000 + 80_000_000;
    let dearest = |input: i128| input * 100_000_000 + 10 * 1_000_000_000;
    for (model, lane, metered, expected) in [
        ("m", Flex, of(1_000, Tier::Flex), own),
        ("m-2026-11-28", Flex, of(1_000, Tier::Flex), own),
        (
            "m",
            Flex,
            of(1_001, Tier::Flex),
            901 * 2_000_000 + 250_000_000 + 120_000_000,
        ),
        // A line's tier is none.
        (
            "m",
            Batch,
            long_kept(of(1_000, Tier::Priority)),
            own + 60 * 750_000,
        ),
        (
            "m",
            Batch,
            long_kept(of(1_001, Tier::Default)),
            dearest(1_001),
        ),
        ("m", Standard, of(1_001, Tier::Priority), dearest(1_001)),
        ("m", Standard, of(1_000, Tier::Scale), dearest(1_000)),
        (
            "m",
            Flex,
            Metered {
                sound: true,
                ..of(1_000, Tier::Flex)
            },
            dearest(1_000),
        ),
        ("other", Batch, of(1_000, Tier::Default), dearest(1_000)),
    ] {
        let most = prices.at_most(model, lane, &metered);
        assert_eq!(most, pico(expected), "{model} {lane} {metered:?}");
    }
    let usage = Usage { cached: 0, ..USAGE };
    let standard = prices.bill("m", Standard, &usage).unwrap().paid;
    assert_eq!(prices.ordinary("m", &usage), standard);
    assert_eq!(prices.ordinary("other", &usage), prices.dearest(&usage));
}

/// The dearest costs 1,500 times as much as an embedding.
#[test]
fn no_models_own_price_is_left_for_the_dearest() {
    let prices = built_in();
    for name in prices.models.keys() {
        for lane in Lane::ALL {
            let fresh = Usage { cached: 0, ..USAGE };
            let own = prices.bill(name, Lane::Standard, &fresh).unwrap().paid;
            let metered = Metered {
                usage: USAGE,
                known: true,
                ..Metered::default()
            };
            let most = prices.at_most(name, lane, &metered);
            assert_eq!(most, own, "{name} {lane}");
            assert_eq!(prices.ordinary(name, &fresh), own, "{name}");
        }
    }
}

/// Half of what it costs in an ordinary call, as all in a batch: OpenAI's Batch guide and
/// Anthropic's documents on caching, whose rates hold in batches too.
#[test]
fn what_a_batch_keeps_for_longer_costs_half() {
    let prices = built_in();
    let models = prices.models.iter();
    let batches = models.filter_map(|(name, model)| Some((name, model, model.usual.batch?)));
    let mut count = 0;
    for (name, model, batch) in batches {
        let Some(standard) = model.usual.standard.cache_write_long else {
            assert_eq!(batch.cache_write_long, None, "{name}");
            continue;
        };
        assert_eq!(batch.cache_write_long, Some(standard.share(1, 2)), "{name}");
        if let Some(long) = &model.long {
            let of = |rates: Rates| rates.cache_write_long;
            let standard = of(long.lanes.standard).map(|rate| rate.share(1, 2));
            assert_eq!(long.lanes.batch.and_then(of), standard, "{name}");
        }
        count += 1;
    }
    assert!(count >= 20, "{count}");
}

#[test]
fn a_file_of_ones_own_goes_over_what_is_built_in() {
    let own = OWN.replace("models.\"m\"", "models.\"gpt-5.5\"");
    let prices = built_in().with(&own).unwrap();
    let of = |prices: &Prices, model, lane| prices.bill(model, lane, &USAGE);
    let parsed = Prices::parse(&own).unwrap();
    for lane in Lane::ALL {
        // All of it, and what it lacks is not taken from the other.
        assert_eq!(of(&prices, "gpt-5.5", lane), of(&parsed, "gpt-5.5", lane));
        assert_eq!(of(&prices, "o3", lane), bill("o3", lane));
    }
    assert_eq!(of(&prices, "gpt-5.5", Lane::Flex), None);
    assert!(bill("gpt-5.5", Lane::Flex).is_some());
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    for (right, wrong, told) in [
        (
            r#"batch = { input = "0.5""#,
            r#"batch = { input = "0.1234567""#,
            "prices: models.m: batch.input: `0.1234567` has more than six decimals",
        ),
        (
            r#"cached_input = "0.2""#,
            r#"cached_input = "1e-1""#,
            "prices: models.m: long.standard.cached_input: `1e-1` is no decimal number of dollars",
        ),
        (
            r#"output = "8" }"#,
            r#"output = 8 }"#,
            "prices: models.m.standard.output: invalid type: integer `8`, expected a string",
        ),
        (
            r#"output = "8" }"#,
            r#"outptu = "8" }"#,
            "prices: models.m.standard.outptu: unknown field `outptu`",
        ),
        (
            "long.above = 1000",
            "",
            "prices: models.m.long: missing field `above`",
        ),
        (
            "standard = {",
            "normal = {",
            "prices: models.m.normal: unknown field `normal`",
        ),
        (
            r#""0.6""#,
            r#""60 %""#,
            "prices: background.8h: `60 %` is no share of a price",
        ),
        ("[models", "[models", ""),
        ("batch = {", "batch {", "prices: TOML parse error at line 8"),
    ] {
        let file = OWN.replacen(right, wrong, 1);
        let told_now = Prices::parse(&file).err().map(|error| error.to_string());
        let told_now = told_now.unwrap_or_default();
        assert!(told_now.starts_with(told), "{told_now}");
        assert_eq!(told_now.is_empty(), told.is_empty(), "{told_now}");
    }
}

const LIST: &str = include_str!("fixtures/litellm.json");

/// A list as LiteLLM keeps it, cut out of its own.
#[test]
fn a_list_is_imported_number_for_number() {
    let imported = litellm::import(LIST, &litellm::PROVIDERS, "2026-11-28").unwrap();
    insta::assert_snapshot!(imported.toml);
    assert_eq!((imported.models, imported.left_out), (9, Vec::new()));
    let prices = Prices::parse(&imported.toml).unwrap();
    for model in [
        "gpt-5.5",
        "gpt-5.5-2026-04-23",
        "claude-haiku-5-5",
        "grok-4.7",
    ] {
        for lane in Lane::ALL {
            for input in [1_000, 99_999, 100_001, 199_999, 200_000, 272_000, 272_001] {
                let usage = Usage { input, ..USAGE };
                let imported = prices.bill(model, lane, &usage);
                assert_eq!(imported, built_in().bill(model, lane, &usage), "{model}");
            }
        }
    }
    let again = litellm::import(LIST, &litellm::PROVIDERS, "2026-11-28").unwrap();
    assert_eq!(again.toml, imported.toml);
}

#[test]
fn whose_models_are_imported_is_said() {
    let of = |providers: &[&str]| litellm::import(LIST, providers, "2026-11-28").unwrap();
    let others = of(&["novita"]);
    // Written out by a float that was divided.
    assert!(LIST.contains("5.0000000000000004e-08"));
    assert!(
        others.toml.contains(
            "[models.\"nvidia/nemotron-3-nano-30b-a3b\"]\nstandard = { input = \"0.05\","
        )
    );
    assert_eq!(of(&[]).models, 0);
}

#[test]
fn what_cannot_be_told_is_left_out_and_named() {
    for (model, told) in [
        (
            r#""input_cost_per_token": 3.3333333e-08, "output_cost_per_token": 0"#,
            "input_cost_per_token: 3.3333333e-08 has more than six decimals",
        ),
        (
            r#""input_cost_per_token": "free", "output_cost_per_token": 0"#,
            "input_cost_per_token: \"free\" is no decimal number",
        ),
        (
            r#""input_cost_per_token": 1e-06"#,
            "it has no price by the token",
        ),
        (
            r#""input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06,
               "output_cost_per_reasoning_token": 3e-06"#,
            "tokens of reasoning cost otherwise",
        ),
        (
            r#""input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06,
               "input_cost_per_token_above_128k_tokens": 2e-06,
               "input_cost_per_token_above_256k_tokens": 3e-06"#,
            "its price has several steps",
        ),
        (
            r#""input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06,
               "input_cost_per_token_above_128k_tokens": 2e-06"#,
            "what a long input costs is told by halves",
        ),
    ] {
        let list = format!(
            r#"{{"m":{{"litellm_provider":"openai","mode":"chat",{model}}},"x":[],
                "y":{{"litellm_provider":"openai","mode":"chat","input_cost_per_token":1e-6,
                      "output_cost_per_token":2e-6}}}}"#
        );
        let imported = litellm::import(&list, &["openai"], "2026-11-28").unwrap();
        assert_eq!(imported.models, 1, "{told}");
        let [left_out] = &imported.left_out[..] else {
            panic!("{:?}", imported.left_out);
        };
        assert_eq!(left_out.model, "m");
        assert!(left_out.why.starts_with(told), "{}", left_out.why);
    }
    assert!(litellm::import("[]", &["openai"], "2026-11-28").is_err());
}

fn rates() -> impl Strategy<Value = Rates> {
    let price = || (0..1_000_000_000i128).prop_map(Usd::from_pico);
    let long = proptest::option::of(price());
    (price(), price(), price(), long, price()).prop_map(
        |(input, cached_input, cache_write, cache_write_long, output)| Rates {
            input,
            cached_input,
            cache_write,
            cache_write_long,
            output,
        },
    )
}

fn lanes() -> impl Strategy<Value = Lanes> {
    let other = || proptest::option::of(rates());
    (rates(), other(), other(), other()).prop_map(|(standard, batch, flex, priority)| Lanes {
        standard,
        batch,
        flex,
        priority,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        name in "\\PC{1,12}",
        usual in lanes(),
        long in proptest::option::of((0..i64::MAX as u64, lanes())),
    ) {
        let long = long.map(|(above, lanes)| Long { above, lanes });
        let model = Model { usual, long };
        let head = "updated = \"x\"\n[background]\n8h = \"0.6\"\n2h = \"0.7\"\n";
        let file = format!("{head}{}", file::written(&name, &model));
        let prices = Prices::parse(&file).unwrap();
        prop_assert_eq!(prices.models, BTreeMap::from([(name, model)]));
    }

    /// Of prompts that are not long, the price of two answers is the price of both.
    #[test]
    fn prices_add_up(parts in proptest::collection::vec((0..300u64, 0..300u64, 0..300u64, 0..900u64), 2)) {
        let prices = Prices::parse(OWN).unwrap();
        let usages = parts.into_iter().map(|(fresh, cached, cache_write, output)| Usage {
            input: fresh + cached + cache_write,
            cached,
            cache_write,
            output,
        });
        let usages: Vec<Usage> = usages.collect();
        let mut both = usages[0];
        both += usages[1];
        for lane in [Lane::Batch, Lane::Standard] {
            let paid = |usage| prices.bill("m", lane, usage).unwrap().paid;
            if both.input <= 1_000 {
                prop_assert_eq!(paid(&usages[0]) + paid(&usages[1]), paid(&both));
            }
        }
    }
}
