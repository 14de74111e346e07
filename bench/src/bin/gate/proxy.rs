//! The proxies with which the gate is compared. A proxy reads the whole body, forwards it, and checks nothing.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

const LIMIT: usize = 12 << 20;

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// Runs a proxy. The kind `pooled` uses hyper-util's pooling client, as most proxies do. The kind `bare` opens one
/// upstream connection for each connection of a client, which is the least that a proxy can do.
pub(crate) async fn run(upstream: &str, kind: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let upstream: SocketAddr = upstream.parse()?;
    let is_pooled = kind == "pooled";
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        tokio::spawn(async move {
            let server = {
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new());
                server
            };
            let io = TokioIo::new(stream);
            if is_pooled {
                let service = service_fn(move |request| pooled(client.clone(), upstream, request));
                // A client that leaves ends its connection with an error.
                server.serve_connection(io, service).await.ok();
            } else {
                let Ok(to) = TcpStream::connect(upstream).await else { return };
                to.set_nodelay(true).ok();
                let Ok((sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(to)).await else {
                    return;
                };
                tokio::spawn(connection);
                let sender = std::sync::Arc::new(tokio::sync::Mutex::new(sender));
                let service = service_fn(move |request| bare(std::sync::Arc::clone(&sender), request));
                server.serve_connection(io, service).await.ok();
            }
        });
    }
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

async fn pooled(client: Client<HttpConnector, Full<Bytes>>, to: SocketAddr, request: Request<Incoming>) -> Answer {
    let (mut head, body) = request.into_parts();
    let Some(body) = whole(body).await else { return refused() };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{to}{path}").parse::<Uri>() else { return refused() };
    head.uri = uri;
    match client.request(Request::from_parts(head, Full::new(body))).await {
        Ok(response) => answer(response).await,
        Err(_) => refused(),
    }
}

async fn bare(sender: std::sync::Arc<tokio::sync::Mutex<Sender>>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let Some(body) = whole(body).await else { return refused() };
    match sender.lock().await.send_request(Request::from_parts(head, Full::new(body))).await {
        Ok(response) => answer(response).await,
        Err(_) => refused(),
    }
}

async fn answer(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let Some(body) = whole(body).await else { return refused() };
    Ok(Response::from_parts(head, Full::new(body)))
}

#[expect(clippy::disallowed_methods, reason = "Limited bounds the body")]
async fn whole(body: Incoming) -> Option<Bytes> {
    Some(Limited::new(body, LIMIT).collect().await.ok()?.to_bytes())
}

fn refused() -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    Ok(response)
}
