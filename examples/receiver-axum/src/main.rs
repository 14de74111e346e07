//! Receives callbacks with axum: verifies each one, handles it once, and does not let an older one overwrite
//! a newer one.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::routing::post;
use scale_callback_auth::{Callback, EventTime, VerifiedCallback, Verifier};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Clone)]
struct App {
    verifier: Arc<Verifier>,
    done: Arc<Mutex<Done>>,
}

/// The callbacks that were handled. In production, keep them in tables of your database: claim `webhook-id` under a unique
/// key, do the work and commit, all in one transaction. Here the mutex takes the place of that transaction.
#[derive(Default)]
struct Done {
    ids: HashSet<String>,
    /// The newest event of each task.
    newest: HashMap<String, EventTime>,
}

/// Gives the extractor the verifier.
impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.verifier)
    }
}

/// A request that does not verify never comes here: it was answered with 401, or with 413 above 12 MiB.
async fn receive(State(app): State<App>, received: VerifiedCallback) -> StatusCode {
    let Ok(callback) = received.callback() else { return StatusCode::BAD_REQUEST };
    let verified = received.verified();
    let mut done = app.done.lock().unwrap_or_else(PoisonError::into_inner);
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

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let verifier = match Verifier::from_env() {
        Ok(verifier) => Arc::new(verifier),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let router = Router::new().route("/callbacks", post(receive)).with_state(App { verifier, done: Arc::default() });
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await;
    let served: Result<(), std::io::Error> = async {
        let listener = listener?;
        println!("listening on http://{}/callbacks", listener.local_addr()?);
        let mut terminate = signal(SignalKind::terminate())?;
        axum::serve(listener, router)
            .with_graceful_shutdown(async move {
                terminate.recv().await;
            })
            .await
    }
    .await;
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
