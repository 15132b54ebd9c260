//! Where an endpoint is, what may be sent to it, and through which proxy: pure.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::http::header::HeaderName;

use super::config::HeaderValue;

/// A checked base URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) authority: String,
    host: String,
    pub(super) is_https: bool,
    is_loopback: bool,
    /// Scheme, authority and path, without a slash at the end.
    base: String,
    /// With its question mark, or empty.
    query: String,
    /// For people: where chat completions are, without the query.
    pub(super) shown: String,
}

impl Endpoint {
    /// Read a base URL. Errors don't quote it: it may hold a password.
    pub fn parse(base_url: &str) -> Result<Self, String> {
        let uri: Uri = base_url
            .trim()
            .parse()
            .map_err(|_| "not a URL; expected something like https://host/v1".to_owned())?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("must begin with https:// or http://".into()),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err(
                "holds a user name or password, which would be committed; use `api_key_env`".into(),
            );
        }
        let host = authority
            .host()
            .trim_matches(['[', ']'])
            .to_ascii_lowercase();
        if host.is_empty() {
            return Err("names no host".into());
        }
        let path = uri.path().trim_end_matches('/');
        if path.ends_with("/chat/completions") {
            return Err("leave out `/chat/completions`: it is added".into());
        }
        let is_loopback = host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback());
        let scheme = if is_https { "https" } else { "http" };
        let base = format!("{scheme}://{authority}{path}");
        Ok(Self {
            authority: authority.to_string(),
            host,
            is_https,
            is_loopback,
            shown: format!("{base}/chat/completions"),
            query: uri
                .query()
                .map(|query| format!("?{query}"))
                .unwrap_or_default(),
            base,
        })
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// Where something hangs below the base, query included.
    pub(super) fn url(&self, what: &str) -> String {
        format!("{}/{what}{}", self.base, self.query)
    }

    /// The proxy to go through, if the environment names one for this host.
    pub(super) fn proxy(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<ureq::Proxy>, String> {
        let first = |names: &[&str]| {
            let mut found = names.iter().filter_map(|name| environment(name));
            found.find(|value| !value.is_empty())
        };
        if self.is_loopback {
            return Ok(None);
        }
        if first(&["NO_PROXY", "no_proxy"]).is_some_and(|list| self.matches_no_proxy(&list)) {
            return Ok(None);
        }
        let own = if self.is_https {
            ["HTTPS_PROXY", "https_proxy"]
        } else {
            ["http_proxy", "HTTP_PROXY"]
        };
        let Some(url) = first(&own).or_else(|| first(&["ALL_PROXY", "all_proxy"])) else {
            return Ok(None);
        };
        // The URL may hold a password: it isn't quoted.
        ureq::Proxy::new(&url).map(Some).map_err(|_| {
            "the proxy that the environment names can't be used (http:// and https:// proxies can)"
                .into()
        })
    }

    fn matches_no_proxy(&self, list: &str) -> bool {
        list.split(',').map(str::trim).any(|entry| {
            let entry = entry.to_ascii_lowercase();
            let entry = entry.trim_start_matches("*.").trim_start_matches('.');
            entry == "*"
                || (!entry.is_empty()
                    && (self.host == entry
                        || self.authority.eq_ignore_ascii_case(entry)
                        || self.host.ends_with(&format!(".{entry}"))))
        })
    }
}

/// Whether a configured header may be sent as it is.
pub fn check_header(name: &str, value: &HeaderValue) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if HeaderName::try_from(name).is_err() {
        return Err(format!("`{name}` is not a header's name"));
    }
    if matches!(
        lower.as_str(),
        "host" | "content-length" | "transfer-encoding" | "connection"
    ) {
        return Err(format!("`{name}` is set by the connection itself"));
    }
    let secret = [
        "authorization",
        "proxy-authorization",
        "api-key",
        "x-api-key",
        "cookie",
    ];
    if matches!(value, HeaderValue::Literal(_)) && secret.contains(&lower.as_str()) {
        return Err(format!(
            "`{name}` holds a key, which would be committed; write {name} = {{ env = \"NAME\" }}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_as_the_environment_says() {
        let cases = [
            // base URL, environment, proxy
            (
                "https://api.example.com/v1",
                &[("HTTPS_PROXY", "http://p:1")][..],
                Some("p"),
            ),
            (
                "https://api.example.com/v1",
                &[("https_proxy", "http://p:1")],
                Some("p"),
            ),
            (
                "https://api.example.com/v1",
                &[("HTTP_PROXY", "http://p:1")],
                None,
            ),
            (
                "http://api.example.com/v1",
                &[("HTTP_PROXY", "http://p:1")],
                Some("p"),
            ),
            (
                "https://api.example.com/v1",
                &[("ALL_PROXY", "http://a:1"), ("HTTPS_PROXY", "http://p:1")],
                Some("p"),
            ),
            (
                "https://api.example.com/v1",
                &[("ALL_PROXY", "http://a:1")],
                Some("a"),
            ),
            (
                "https://api.example.com/v1",
                &[("ALL_PROXY", "http://a:1"), ("NO_PROXY", "x, example.com")],
                None,
            ),
            (
                "https://api.example.com/v1",
                &[("ALL_PROXY", "http://a:1"), ("no_proxy", ".example.com")],
                None,
            ),
            (
                "https://api.example.com/v1",
                &[("ALL_PROXY", "http://a:1"), ("NO_PROXY", "ample.com")],
                Some("a"),
            ),
            (
                "https://api.example.com/v1",
                &[("ALL_PROXY", "http://a:1"), ("NO_PROXY", "*")],
                None,
            ),
            ("https://api.example.com/v1", &[], None),
            (
                "http://localhost:1/v1",
                &[("ALL_PROXY", "http://a:1")],
                None,
            ),
            (
                "http://127.0.0.1:1/v1",
                &[("ALL_PROXY", "http://a:1"), ("NO_PROXY", "localhost")],
                None,
            ),
            ("http://[::1]:1/v1", &[("http_proxy", "http://a:1")], None),
        ];
        for (url, environment, expected) in cases {
            let endpoint = Endpoint::parse(url).expect("a URL");
            let look = |name: &str| {
                let found = environment.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let proxy = endpoint.proxy(&look).expect("a usable proxy");
            let host = proxy.as_ref().map(ureq::Proxy::host);
            assert_eq!(host, expected, "{url} with {environment:?}");
        }
        let endpoint = Endpoint::parse("https://h/v1").expect("a URL");
        let error = endpoint
            .proxy(&|name| (name == "ALL_PROXY").then(|| "ftp://u:hunter2@p".into()))
            .expect_err("no such kind of proxy");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn urls_keep_their_query_and_hide_it() {
        let endpoint =
            Endpoint::parse("https://Host.example/deploy/x/?api-version=1").expect("a URL");
        assert_eq!(
            endpoint.url("chat/completions"),
            "https://Host.example/deploy/x/chat/completions?api-version=1"
        );
        assert_eq!(
            endpoint.shown,
            "https://Host.example/deploy/x/chat/completions"
        );
        assert!(!endpoint.is_loopback());
        for here in [
            "http://localhost/v1",
            "http://127.8.0.1/v1",
            "http://[::1]:8/v1",
            "http://a.localhost/",
        ] {
            assert!(
                Endpoint::parse(here).expect("a URL").is_loopback(),
                "{here}"
            );
        }
        for there in [
            "http://localhost.example/v1",
            "http://127.0.0.1.example/v1",
            "http://10.0.0.1/",
        ] {
            assert!(
                !Endpoint::parse(there).expect("a URL").is_loopback(),
                "{there}"
            );
        }
    }
}
