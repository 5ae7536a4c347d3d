//! How a lane is asked for in the body of a call (WIRE.md §2). The caller's bytes
//! are edited, never written anew.

use bytes::Bytes;

use crate::{
    model::{
        attempt::Lane,
        body::{Edit, Strip, line_body},
    },
    ports::{BackgroundCall, LiveCall, ProviderError},
};

type Fields = &'static [(&'static str, &'static str)];

const FLEX: Fields = &[("service_tier", "\"flex\"")];
const EIGHT_HOURS: Fields = &[
    ("background", "true"),
    ("background_options", "{\"completion_window\":\"8h\"}"),
];
const TWO_HOURS: Fields = &[
    ("background", "true"),
    ("background_options", "{\"completion_window\":\"2h\"}"),
];
const STORED: Fields = &[("store", "true")];

/// The body of a live call. On the standard tier it is the one given.
pub(super) fn live(call: &LiveCall) -> Result<Bytes, ProviderError> {
    match call.lane {
        Lane::Standard => Ok(call.body.clone()),
        Lane::Flex => edited(&call.body, Strip::TIER, FLEX),
        lane => Err(ProviderError::Local(format!(
            "a live call cannot run in the lane {lane}"
        ))),
    }
}

pub(super) fn background(call: &BackgroundCall) -> Result<Bytes, ProviderError> {
    let window = match call.lane {
        Lane::Background8h => EIGHT_HOURS,
        Lane::Background2h => TWO_HOURS,
        lane => {
            return Err(ProviderError::Local(format!(
                "a background response cannot run in the lane {lane}"
            )));
        }
    };
    if call.store {
        let set = [window, STORED].concat();
        edited(&call.body, Strip::BACKGROUND_STORED, &set)
    } else {
        edited(&call.body, Strip::BACKGROUND, window)
    }
}

fn edited(
    body: &[u8],
    strip: Strip,
    set: &[(&'static str, &'static str)],
) -> Result<Bytes, ProviderError> {
    let edit = Edit {
        set,
        ..Edit::strip(strip)
    };
    let mut out = Vec::with_capacity(body.len() + 96);
    line_body(body, &edit, &mut out).map_err(|refusal| ProviderError::Local(refusal.message()))?;
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::endpoint::Endpoint;

    const CALL: &str = r#"{"model":"o3","service_tier":"auto","input":"a  b","temperature":1.0}"#;

    fn live_call(lane: Lane, body: &'static str) -> Result<Bytes, ProviderError> {
        live(&LiveCall {
            endpoint: Endpoint::Responses,
            lane,
            body: Bytes::from(body),
            timeout: Duration::from_secs(1),
        })
    }

    fn background_call(
        lane: Lane,
        store: bool,
        body: &'static str,
    ) -> Result<Bytes, ProviderError> {
        background(&BackgroundCall {
            lane,
            body: Bytes::from(body),
            store,
        })
    }

    #[test]
    fn a_live_call_keeps_its_bytes_but_for_the_tier() {
        let flex = r#"{"model":"o3","input":"a  b","temperature":1.0,"service_tier":"flex"}"#;
        assert_eq!(live_call(Lane::Standard, CALL).unwrap(), CALL);
        assert_eq!(live_call(Lane::Flex, CALL).unwrap(), flex);
        assert_eq!(live_call(Lane::Flex, flex).unwrap(), flex);
        let streamed = r#"{"model":"o3","stream":true,"service_tier":"flex"}"#;
        let given = r#"{"model":"o3", "stream":true}"#;
        assert_eq!(live_call(Lane::Flex, given).unwrap(), streamed);
    }

    #[test]
    fn a_background_call_says_when_and_whether_it_is_stored() {
        let window = r#""background":true,"background_options":{"completion_window":"#;
        let fields = r#""model":"o3","input":"x""#;
        let given = r#"{"model":"o3","stream":true,"stream_options":{},"background":false,
            "background_options":{"completion_window":"9h"},"service_tier":"flex","input":"x"}"#;
        for (lane, store, expected) in [
            (
                Lane::Background8h,
                false,
                format!("{{{fields},{window}\"8h\"}}}}"),
            ),
            (
                Lane::Background2h,
                true,
                format!("{{{fields},{window}\"2h\"}},\"store\":true}}"),
            ),
        ] {
            assert_eq!(background_call(lane, store, given).unwrap(), expected);
        }
        let window = format!("{window}\"8h\"}}");
        for (given, store, expected) in [
            (
                r#"{"store":null}"#,
                false,
                format!("{{\"store\":null,{window}}}"),
            ),
            (
                r#"{"store":false}"#,
                false,
                format!("{{\"store\":false,{window}}}"),
            ),
            (
                r#"{"store":null}"#,
                true,
                format!("{{{window},\"store\":true}}"),
            ),
        ] {
            let sent = background_call(Lane::Background8h, store, given).unwrap();
            assert_eq!(sent, expected);
        }
    }

    #[test]
    fn a_lane_that_is_none_of_these_is_our_own_mistake() {
        for lane in Lane::ALL {
            let live = live_call(lane, CALL);
            let background = background_call(lane, true, CALL);
            let is_live = matches!(lane, Lane::Standard | Lane::Flex);
            let is_background = matches!(lane, Lane::Background8h | Lane::Background2h);
            assert_eq!(live.is_ok(), is_live, "{lane}");
            assert_eq!(background.is_ok(), is_background, "{lane}");
        }
        assert!(matches!(
            live_call(Lane::Flex, "[]"),
            Err(ProviderError::Local(_))
        ));
    }
}
