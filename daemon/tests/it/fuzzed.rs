//! The API under schemathesis, which makes valid and invalid requests from the API's document. No answer may be a 5xx,
//! and each answer must agree with the document.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::api::{Api, furnished, started};

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_server_error_and_no_schema_violation() {
    let tool = std::env::var_os("CALLBACKD_TEST_SCHEMATHESIS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/schemathesis"),
        PathBuf::from,
    );
    assert!(tool.exists(), "schemathesis is not at {}; run: make test", tool.display());
    let (harness, api) = started().await;
    let (ids, _receivers) = furnished(&harness, &api).await;
    let folder = tempfile::tempdir().unwrap();
    // Requests name things that exist and things that do not.
    let of = |path: &str, id: &str| {
        format!("[[operations]]\ninclude-path = \"/admin/v1{path}\"\nparameters = {{ id = \"{}\" }}\n", ids[id])
    };
    let known = [
        format!("[parameters]\nteam = \"team_acme\"\nkey = \"{}\"\n", ids["key"]),
        of("/callbacks/{id}", "pending"),
        of("/callbacks/{id}/attempts", "pending"),
        of("/callbacks/{id}/payload", "pending"),
        of("/dead_letters/{id}", "letter"),
    ];
    for config in [String::new(), known.concat()] {
        std::fs::write(folder.path().join("schemathesis.toml"), config).unwrap();
        run(&tool, folder.path(), &api).await;
    }
}

async fn run(tool: &Path, folder: &Path, api: &Api) {
    let output = tokio::task::spawn_blocking({
        let (tool, folder, token, address) = (tool.to_owned(), folder.to_owned(), api.token.clone(), api.address);
        move || {
            Command::new(tool)
                .current_dir(folder)
                .env("NO_COLOR", "1")
                .args(["run", &format!("http://{}/openapi.json", address)])
                .args(["--header", &format!("Authorization: Bearer {token}")])
                // One worker: Python 3.11's parser, which it uses on itself, counts its depth over all threads.
                .args(["--seed", "20261124", "--max-examples", "50", "--workers", "1", "--generation-database", "none"])
                .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "40"])
                .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
                .args(["--checks", "response_headers_conformance,response_schema_conformance,unsupported_method"])
                .output()
                .unwrap()
        }
    })
    .await
    .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    // No operation was left out.
    let count = callbackd::api::openapi().matches("\"operationId\"").count();
    assert!(printed.contains(&format!("{count} selected / {count} total")), "{count} operations: {printed}");
}
