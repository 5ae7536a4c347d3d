//! Every lane outside of batches, asked for by the adapter and answered by the
//! simulator: two readings of one wire, and one bill.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt;
use offpeak::{
    ledger::{self, Metered, Prices},
    model::{attempt::Lane, endpoint::Endpoint, money::Usd, time::Timestamp},
    ports::{
        BackgroundCall, Credential, LiveCall, Provider, ProviderError, RemoteResponse,
        ResponseStatus,
    },
    provider::{self, OpenAi},
    simulator::{Fault, Kind, Operation, Settings, Simulator},
};
use serde_json::{Value, json};

use super::{
    asking::{HOUR, MINUTE, SECOND, credential},
    life::Line,
};

/// A provider, and what our ledger makes of its answers.
struct Wire {
    sim: Arc<Simulator>,
    provider: Arc<dyn Provider>,
    prices: Prices,
    by: Credential,
    paid: BTreeMap<Lane, Usd>,
}

impl Wire {
    fn new() -> Wire {
        let mut settings = Settings::default();
        settings.latency.background_sigma = 0.0;
        let sim = Simulator::new(settings, Timestamp::from_secs(1_800_000_000));
        let upstream = provider::Settings {
            base_url: "http://provider/v1".into(),
            connect_timeout: SECOND,
            read_timeout: HOUR,
            upload_timeout: MINUTE,
            input_expires_after: HOUR,
            output_expires_after: HOUR,
        };
        let line = Line::to(sim.clone());
        let openai = OpenAi::new(&upstream, move |_to: http::Uri| line.clone().dial());
        Wire {
            sim,
            provider: Arc::new(openai.unwrap()),
            prices: Prices::built_in().unwrap(),
            by: credential("sk-test"),
            paid: BTreeMap::new(),
        }
    }

    /// Books an answer; the lane that it is billed as.
    fn book(&mut self, asked: Lane, metered: &Metered) -> Lane {
        assert!(metered.known);
        let lane = metered.lane(asked);
        let bill = self.prices.bill("o3", lane, &metered.usage).unwrap();
        *self.paid.entry(lane).or_default() += bill.paid;
        lane
    }

    /// One live call: its status, and the lane that it is billed as.
    async fn run(&mut self, lane: Lane, endpoint: Endpoint, more: Value) -> (u16, Option<Lane>) {
        let stream = more["stream"] == true;
        let call = LiveCall {
            endpoint,
            lane,
            body: body(endpoint, more),
            timeout: HOUR,
        };
        let reply = self.provider.run(&self.by, call).await.unwrap();
        let status = reply.status;
        let answer: Vec<Bytes> = reply.body.try_collect().await.unwrap();
        if status != 200 {
            return (status, None);
        }
        let answer = answer.concat();
        let metered = match stream {
            true => ledger::meter_stream(&answer),
            false => ledger::meter(&answer),
        };
        (status, Some(self.book(lane, &metered)))
    }

    async fn create(&self, lane: Lane, more: Value) -> Result<RemoteResponse, ProviderError> {
        let call = BackgroundCall {
            lane,
            body: body(Endpoint::Responses, more),
            store: true,
        };
        self.provider.create_response(&self.by, call).await
    }

    /// What the ledger says, and what the provider charges, lane by lane.
    fn agree(&self) {
        let mut charged: BTreeMap<String, i128> = BTreeMap::new();
        for row in self.sim.bill().rows {
            let lane = serde_json::to_value(row.lane).unwrap();
            let lane = lane.as_str().unwrap().to_owned();
            *charged.entry(lane).or_default() += i128::from(row.pico_usd);
        }
        let paid = self.paid.iter();
        let paid: BTreeMap<String, i128> = paid
            .map(|(lane, paid)| (lane.to_string(), paid.as_pico()))
            .collect();
        assert_eq!(paid, charged);
    }
}

fn body(endpoint: Endpoint, more: Value) -> Bytes {
    let mut body = json!({"model": "o3", "metadata": {"sim": "tokens=31 cached=2"}});
    match endpoint {
        Endpoint::Responses => body["input"] = json!("how much is this"),
        _ => body["messages"] = json!([{"role": "user", "content": "how much is this"}]),
    }
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into()
}

#[tokio::test(start_paused = true)]
async fn the_answer_s_tier_is_what_is_paid() {
    let mut wire = Wire::new();
    let plain = || json!({});
    for endpoint in [Endpoint::ChatCompletions, Endpoint::Responses] {
        for (asked, more, billed) in [
            (Lane::Standard, plain(), Lane::Standard),
            (Lane::Standard, json!({"service_tier": "flex"}), Lane::Flex),
            (Lane::Flex, plain(), Lane::Flex),
            (Lane::Flex, json!({"service_tier": "default"}), Lane::Flex),
        ] {
            let answered = wire.run(asked, endpoint, more).await;
            assert_eq!(answered, (200, Some(billed)), "{endpoint:?} {asked}");
        }
        for lane in [Lane::Standard, Lane::Flex] {
            let mut more = json!({"stream": true});
            if endpoint == Endpoint::ChatCompletions {
                more["stream_options"] = json!({"include_usage": true});
            }
            let answered = wire.run(lane, endpoint, more).await;
            assert_eq!(answered, (200, Some(lane)), "{endpoint:?}");
        }
    }
    wire.agree();

    for kind in [Kind::FlexShortage, Kind::FlexAsDefault] {
        wire.sim.inject(Fault::once(Operation::Any, kind));
    }
    let chat = Endpoint::ChatCompletions;
    assert_eq!(wire.run(Lane::Flex, chat, plain()).await, (429, None));
    let downgraded = wire.run(Lane::Flex, chat, plain()).await;
    assert_eq!(downgraded, (200, Some(Lane::Standard)));
    let unknown = wire
        .run(Lane::Flex, chat, json!({"model": "gpt-4o-mini"}))
        .await;
    assert_eq!(unknown, (400, None));
    wire.agree();
}

#[tokio::test(start_paused = true)]
async fn a_background_response_costs_what_its_window_costs() {
    let mut wire = Wire::new();
    for (lane, store) in [
        (Lane::Background8h, json!({})),
        (Lane::Background2h, json!({"store": null, "stream": true})),
    ] {
        let created = wire.create(lane, store).await.unwrap();
        assert_eq!(created.status_text, "queued");
        let mut now = created.clone();
        while !now.status.is_terminal() {
            tokio::time::sleep(MINUTE).await;
            now = wire.provider.response(&wire.by, &created.id).await.unwrap();
        }
        assert_eq!(now.status, ResponseStatus::Completed);
        assert!(now.request.is_some());
        let metered = ledger::meter(&now.body);
        assert_eq!(wire.book(lane, &metered), lane);

        let other = wire.create(lane, json!({})).await.unwrap();
        for _ in 0..2 {
            let cancelled = wire.provider.cancel_response(&wire.by, &other.id).await;
            assert_eq!(cancelled.unwrap().status, ResponseStatus::Cancelled);
        }
        let late = wire.provider.cancel_response(&wire.by, &created.id).await;
        assert_eq!(late.unwrap().body, now.body);
    }
    tokio::time::sleep(10 * HOUR).await;
    wire.agree();
    let missing = wire.provider.response(&wire.by, "resp_0").await;
    assert!(matches!(
        missing,
        Err(ProviderError::Refused { status: 404, .. })
    ));
}
