//! Makes signed requests as bytes, and reads answers.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, SigningSecret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const AUTH: &str = "live_auth_0123456789abcdef0123456789abcdef";

/// A body of 2 KiB.
pub(crate) fn body() -> String {
    let frame = r#"{"task":{"task_id":"t1"},"response":{"text":""},"task_id":"t1"}"#;
    frame.replace("\"\"", &format!("{:?}", "x".repeat(2_048 - frame.len())))
}

pub(crate) fn signer() -> anyhow::Result<Signer> {
    let key = AuthHeader::Key(CallbackAuthKey::parse(AUTH)?);
    Ok(Signer::new(vec![SigningSecret::parse(SECRET)?], key))
}

#[expect(clippy::disallowed_methods, reason = "requests are signed with the real time")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A request with these headers, as bytes.
pub(crate) fn bytes(headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut bytes = b"POST /callbacks HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\n".to_vec();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A signed request with this id, as bytes.
pub(crate) fn signed(signer: &Signer, id: &str, body: &[u8]) -> Vec<u8> {
    let headers: Vec<_> =
        signer.sign(id, now(), body).to_pairs(id).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    bytes(&headers, body)
}

pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads an answer with an empty body. Returns its status, or `None` if the connection was closed
/// without an answer.
pub(crate) async fn exchange(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<Option<u16>> {
    // A server that refuses a request early answers before it has read everything, so an error of the write may be
    // followed by an answer.
    let sent = stream.write_all(request).await;
    let mut answer = [0; 2048];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\n") && length < answer.len() {
        match stream.read(&mut answer[length..]).await {
            Ok(0) | Err(_) => break,
            Ok(count) => length += count,
        }
    }
    let status = answer[..length].get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
    if status.is_none() {
        sent?;
    }
    Ok(status)
}
