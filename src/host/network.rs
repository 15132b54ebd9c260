//! Whether somebody listens, without saying anything to them.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Whether somebody listens at a URL's host and port.
pub fn reach(url: &str) -> Result<(), String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let target = if host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        host.to_owned()
    } else if url.starts_with("http://") {
        format!("{host}:80")
    } else {
        format!("{host}:443")
    };
    let addresses: Vec<_> = target
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?
        .collect();
    let mut last = format!("{host} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_reached_and_a_closed_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(reach(&format!("http://127.0.0.1:{port}/v1")), Ok(()));
        drop(listener);
        let error = reach(&format!("http://127.0.0.1:{port}/v1")).expect_err("nobody listens");
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
