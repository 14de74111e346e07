//! Receives callbacks with actix-web: verifies each one, handles it once, and does not let an older one overwrite
//! a newer one.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, PayloadConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use scale_callback_auth::{Callback, EventTime, Verifier};

/// The limit of a framework is often smaller than a callback.
const MAX_BODY: usize = 12 << 20;

/// The callbacks that were handled. In production, keep them in tables of your database: claim `webhook-id` under a unique
/// key, do the work and commit, all in one transaction. Here the mutex takes the place of that transaction.
#[derive(Default)]
struct Done {
    ids: HashSet<String>,
    /// The newest event of each task.
    newest: HashMap<String, EventTime>,
}

async fn receive(request: HttpRequest, body: Bytes, verifier: Data<Verifier>, done: Data<Mutex<Done>>) -> HttpResponse {
    HttpResponse::new(decide(&request, &body, &verifier, &done))
}

fn decide(request: &HttpRequest, body: &[u8], verifier: &Verifier, done: &Mutex<Done>) -> StatusCode {
    // Pass every value of every name, so that the verifier can refuse repeated headers.
    let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let verified = match verifier.verify(&headers[..], body) {
        Ok(verified) => verified,
        Err(why) => {
            eprintln!("refused: {why}"); // the sender is told nothing
            return StatusCode::UNAUTHORIZED;
        }
    };
    let Ok(callback) = verified.callback() else { return StatusCode::BAD_REQUEST };
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    if done.ids.contains(verified.id()) {
        println!("repeat {}", verified.id());
        return StatusCode::OK;
    }
    let newest = done.newest.get(callback.task_id()).copied();
    if newest.is_some_and(|newest| verified.is_older_than(newest)) {
        println!("older {} {}", verified.id(), callback.task_id().escape_debug());
    } else {
        handle(verified.id(), &callback);
        if let Some(time) = verified.event_time() {
            done.newest.insert(callback.task_id().to_owned(), time);
        }
    }
    done.ids.insert(verified.id().to_owned());
    StatusCode::NO_CONTENT
}

/// Put your work here. If it fails, answer 500, and the platform tries again.
fn handle(id: &str, callback: &Callback<'_>) {
    // The text of the body is escaped, because it must not be able to forge lines of the log.
    println!("handled {id} {} {}", callback.task_id().escape_debug(), callback.status().unwrap_or("-").escape_debug());
}

fn main() -> ExitCode {
    actix_web::rt::System::new().block_on(serve())
}

async fn serve() -> ExitCode {
    let verifier = match Verifier::from_env() {
        Ok(verifier) => Data::new(verifier),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let done = Data::new(Mutex::new(Done::default()));
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let app = move || {
        App::new()
            .app_data(verifier.clone())
            .app_data(done.clone())
            .app_data(PayloadConfig::new(MAX_BODY))
            .route("/callbacks", web::post().to(receive))
    };
    let server = match HttpServer::new(app).workers(1).shutdown_timeout(1).bind(format!("127.0.0.1:{port}")) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on http://{}/callbacks", server.addrs()[0]);
    match server.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
