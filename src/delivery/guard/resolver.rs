//! Names become addresses only through the [`Guard`].

use std::{net::SocketAddr, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Guard;

/// A resolver that hands out only addresses that the guard admits. A name with
/// none of them is refused, with [`Refused`](super::Refused) in the error's chain of
/// causes.
pub struct GuardedResolver {
    guard: Guard,
    inner: Arc<dyn Resolve>,
}

impl GuardedResolver {
    pub fn new(guard: Guard, inner: Arc<dyn Resolve>) -> Self {
        GuardedResolver { guard, inner }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.guard.clone();
        let resolving = self.inner.resolve(name);
        Box::pin(async move {
            let mut admitted = Vec::new();
            let mut refused = None;
            for address in resolving.await? {
                match guard.check_address(address.ip()) {
                    Ok(()) => admitted.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if admitted.is_empty() => Err(why.into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
            }
        })
    }
}

/// The operating system's resolver.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::guard::Refused;

    struct Fixed(Vec<&'static str>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let found: Vec<SocketAddr> = self
                .0
                .iter()
                .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
                .collect();
            Box::pin(std::future::ready(Ok(Box::new(found.into_iter()) as Addrs)))
        }
    }

    #[tokio::test]
    async fn the_resolver_drops_what_is_not_public() {
        for (allow, found, expected) in [
            (vec![], vec!["8.8.8.8", "10.0.0.1"], Ok(vec!["8.8.8.8:0"])),
            (
                vec![],
                vec!["10.0.0.1", "127.0.0.1"],
                Err("the webhook URL leads to an address that is not public (loopback)"),
            ),
            (
                vec!["10.0.0.0/8"],
                vec!["10.0.0.1", "127.0.0.1"],
                Ok(vec!["10.0.0.1:0"]),
            ),
            (vec![], vec![], Ok(vec![])),
        ] {
            let guard = Guard::new(&allow).unwrap();
            let resolver = GuardedResolver::new(guard, Arc::new(Fixed(found)));
            let answer = resolver.resolve("hooks.example".parse().unwrap()).await;
            match expected {
                Ok(addresses) => {
                    let got: Vec<String> = answer.unwrap().map(|a| a.to_string()).collect();
                    assert_eq!(got, addresses);
                }
                Err(why) => {
                    let error = answer.err().unwrap();
                    assert!(error.is::<Refused>());
                    assert_eq!(error.to_string(), why);
                }
            }
        }
    }
}
