//! The HTTP server shell that every listener of callbackd and scale-callback uses, with a plain client and text made safe
//! to print.
//!
//! The shell accepts connections, limits them, checks the bytes of request heads, speaks TLS, and drains. It never knows
//! what it serves: the caller brings a [`hyper::service::Service`] for each connection. It holds no keys, reads no
//! configuration and starts no process.
//!
//! A module imports only from the modules above it in this list; `tests/order.rs` holds that.
//!
//! | module | its one idea |
//! |---|---|
//! | [`text`] | text from outside is made safe to print |
//! | [`body`] | a body is read with a limit |
//! | [`tls`] | a listener's certificate, which can be read again |
//! | `client_tls` | the certificate authorities that the client trusts |
//! | [`unix`] | a connection to a unix socket, which waits its turn |
//! | [`client`] | one request on one connection |
//! | [`nets`] | networks of addresses, and what tells one sender from another |
//! | [`forwarded`] | the sender of a request that came through proxies |
//! | `proxy_header` | the header of the PROXY protocol |
//! | [`refusal_pace`] | when a refusal may go out |
//! | `strict_head` | request heads that two programs could read differently |
//! | `strict_stream` | a stream that passes only strict heads on |
//! | `activity` | what the requests of one connection are doing |
//! | `places` | who holds a place among the connections, and who gives way |
//! | `write_timeout` | a stream whose writes fail when the other end reads nothing |
//! | `paced_stream` | a stream on which the library's own refusals keep the pace |
//! | `tracked_service` | a service whose open requests are counted and whose refusals keep the pace |
//! | `limits` | the bounds of a server |
//! | [`bind`] | an address is bound, or the sentence says what to do |
//! | `listener` | where a server listens, and who is at the other end |
//! | `connection` | one connection from its handshake to its end |
//! | [`server`] | the accept loop and the drain |

#![deny(missing_docs)]

mod activity;
pub mod bind;
pub mod body;
pub mod client;
mod client_tls;
mod connection;
pub mod forwarded;
mod limits;
mod listener;
pub mod nets;
mod paced_stream;
mod places;
mod proxy_header;
pub mod refusal_pace;
pub mod server;
mod strict_head;
mod strict_stream;
pub mod text;
pub mod tls;
mod tracked_service;
pub mod unix;
mod write_timeout;
