use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    delivery::{
        guard::Refused,
        send::Failure,
        settings::{Endpoint, Settings},
        sign::tests::verifies,
    },
    model::{
        id::{CredentialId, TenantId},
        time::Timestamp,
    },
    ports::{Credential, Unopened},
};

const OF_ENDPOINT: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OF_TENANT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BEFORE: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAA";
const BODY: &[u8] = br#"{"object":"event"}"#;

/// Knows one tenant's two secrets; delivery asks a vault for nothing else.
struct TwoSecrets;

impl Vault for TwoSecrets {
    fn seal(&self, _: CredentialId, _: &Credential) -> Bytes {
        panic!("delivery seals nothing")
    }

    fn open(&self, _: CredentialId, _: &[u8]) -> Result<Credential, Unopened> {
        Err(Unopened)
    }

    fn fingerprint(&self, _: &str, _: &[&[u8]]) -> [u8; 16] {
        panic!("delivery needs no fingerprints")
    }

    fn webhook_secret(&self, tenant: TenantId, number: u32) -> String {
        assert_eq!(tenant, TenantId([1; 16]));
        let secrets = [BEFORE, OF_TENANT];
        secrets[number as usize].to_owned()
    }
}

fn courier(origin: &str) -> Courier {
    let endpoint = Endpoint {
        url: format!("{origin}/named"),
        secret: Some(Secret::new(OF_ENDPOINT)),
    };
    let sender = Sender::new(Settings {
        timeout: Duration::from_secs(20),
        allow: vec![origin.to_owned()],
        horizon: Duration::from_secs(60),
        first_retry: Duration::from_secs(1),
        max_concurrent: 1,
        max_per_endpoint: 1,
        max_inline_bytes: 1024,
        endpoints: BTreeMap::from([("nightly".to_owned(), endpoint)]),
    });
    Courier::new(sender.unwrap(), Arc::new(TwoSecrets))
}

fn event(target: &str) -> HookEvent {
    HookEvent {
        target: target.to_owned(),
        tenant: TenantId([1; 16]),
        id: "evt_1".to_owned(),
        wall: Timestamp::from_secs(1_763_832_346),
        body: Bytes::from_static(BODY),
        bill: None,
        secrets: vec![1, 0],
    }
}

#[tokio::test]
async fn signs_with_the_endpoints_secret_or_the_tenants() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let courier = courier(&origin);
    for (target, right, wrong) in [
        ("nightly", OF_ENDPOINT, OF_TENANT),
        (&format!("{origin}/any"), OF_TENANT, OF_ENDPOINT),
    ] {
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(BODY) {
                assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0);
            }
            // Closed after each, so that the next attempt connects anew.
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            headers_of(&String::from_utf8(seen).unwrap())
        };
        let (outcome, headers) = tokio::join!(courier.deliver(event(target)), serve);
        assert_eq!(outcome, HookOutcome::Delivered { status: 204 });
        assert_eq!(headers["webhook-timestamp"], "1763832346");
        assert!(!headers.contains_key("offpeak-cost-usd"), "it is not known");
        assert!(verifies(right, &headers, BODY));
        assert!(!verifies(wrong, &headers, BODY));
        // The one before the tenant's own signs on for a while.
        assert_eq!(verifies(BEFORE, &headers, BODY), right == OF_TENANT);
    }
}

fn headers_of(request: &str) -> HeaderMap {
    let (head, _) = request.split_once("\r\n\r\n").unwrap();
    let lines = head.lines().skip(1);
    lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (
                HeaderName::try_from(name).unwrap(),
                HeaderValue::try_from(value).unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn gives_up_on_targets_that_are_not_allowed() {
    let courier = courier("http://127.0.0.1:9");
    for (target, reason) in [
        ("weekly", "no webhook endpoint named `weekly` is configured"),
        ("http://example.com/", "a webhook URL must be https"),
    ] {
        let reason = reason.to_owned();
        assert_eq!(courier.check(target), Err(reason.clone()));
        assert_eq!(
            courier.deliver(event(target)).await,
            HookOutcome::GiveUp { reason }
        );
    }
    assert_eq!(courier.check("nightly"), Ok(()));
}

#[test]
fn outcomes_in_words() {
    let after = Some(Duration::from_secs(3));
    let retry = |status, reason| {
        in_words(Outcome::Retry {
            status,
            reason,
            retry_after: after,
        })
    };
    let expected = |status, reason: &str| HookOutcome::Retry {
        status,
        reason: reason.to_owned(),
        after,
    };
    assert_eq!(
        retry(Some(503), Failure::Status),
        expected(
            Some(503),
            "the receiver answered with a status other than 2xx (503)"
        )
    );
    assert_eq!(
        retry(None, Failure::Timeout),
        expected(None, "the receiver did not answer in time")
    );
    let refused = Outcome::Refused {
        reason: Refused::PlainHttp,
    };
    assert!(matches!(in_words(refused), HookOutcome::GiveUp { .. }));
    assert!(matches!(in_words(Outcome::Gone), HookOutcome::Gone { .. }));
}
