//! Keys: every case of the corpus, rotation while the gate runs, and files that cannot be used.

use std::time::Duration;

use scale_callback::conformance::{Form, Verdict, hold};
use scale_callback::gate::Gate;
use scale_callback::receiver_at::ReceiverAt;
use scale_callback_auth::conformance::OwnKeys;

use crate::kit::*;

const HMAC: &str = "live_hmac_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// How long a writer takes for the second half of a file: less than the gate's second between two looks.
const WRITING: Duration = Duration::from_millis(300);
const NEXT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_agrees_with_every_case_of_the_corpus() {
    for (form, keys) in [
        (Form::Signed, format!("SCALE_CALLBACK_SIGNING_SECRET={SECRET}\n")),
        (Form::Keyed, format!("SCALE_CALLBACK_SIGNING_SECRET={SECRET}\nSCALE_CALLBACK_AUTH_KEY={AUTH}\n")),
        (Form::Hmac, format!("SCALE_CALLBACK_HMAC_KEY={HMAC}\n")),
    ] {
        let recorder = Recorder::start(|_| Act::Say(OK)).await;
        let setup = Setup::before(&recorder);
        std::fs::write(setup.keys.path(), keys).unwrap();
        let gate = setup.start().await;
        let own =
            OwnKeys { signing: Some(SECRET.to_owned()), auth: Some(AUTH.to_owned()), hmac: Some(HMAC.to_owned()) };
        let at = ReceiverAt::parse(&format!("http://{}/callbacks", gate.address), None).unwrap();
        let outcomes = hold(&at, form, &own).await.unwrap();
        let wrong: Vec<_> = outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Right).collect();
        assert!(wrong.is_empty(), "{form:?}: {wrong:#?}");
        assert!(outcomes.len() > 70, "{form:?}: {}", outcomes.len());
        assert!(recorder.count() > 10, "{form:?}: {}", recorder.count());
        gate.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_it_runs_and_a_bad_file_keeps_the_old_ones() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    let path = gate.keys.path().to_owned();
    let send = async || status(&exchange(gate.address, good(&fresh_id()).as_bytes()).await);
    assert_eq!(send().await, 200);
    // Files that cannot be used, each in another way.
    for bad in [
        "",
        "nonsense\n",
        "SCALE_CALLBACK_SIGNING_SECRET=\n",
        "SCALE_CALLBACK_SIGNING_SECRET=whsec_x\n",
        "SCALE_CALLBACK_AUTH_KEY=x\n",
    ] {
        std::fs::write(&path, bad).unwrap();
        (gate.reload)();
        assert_eq!(send().await, 200, "{bad:?}");
    }
    std::fs::remove_file(&path).unwrap();
    (gate.reload)();
    assert_eq!(send().await, 200);
    assert!(gate.metric("scale_callback_gate_reloads_total{result=\"refused\"}").await >= 6);
    // Half of a file that is still being written: the gate's second look finds another one.
    std::fs::write(&path, format!("SCALE_CALLBACK_SIGNING_SECRET={SECRET}\n")).unwrap();
    tokio::time::sleep(WRITING).await;
    std::fs::write(&path, format!("SCALE_CALLBACK_SIGNING_SECRET={SECRET}\nSCALE_CALLBACK_AUTH_KEY={AUTH}\n")).unwrap();
    let wrong_key = good(&fresh_id()).replace(AUTH, "live_auth_00000000000000000000000000000000");
    for _ in 0..15 {
        assert_eq!(status(&exchange(gate.address, wrong_key.as_bytes()).await), 401, "the key is never forgotten");
    }
    // A file that is too long is refused: the part that is not read might hold the key.
    let padding = "#".repeat(70_000);
    std::fs::write(
        &path,
        format!("SCALE_CALLBACK_SIGNING_SECRET={SECRET}\n{padding}\nSCALE_CALLBACK_AUTH_KEY={AUTH}\n"),
    )
    .unwrap();
    (gate.reload)();
    assert_eq!(status(&exchange(gate.address, wrong_key.as_bytes()).await), 401);
    // Another secret, which the gate notices by itself.
    std::fs::write(&path, format!("SCALE_CALLBACK_SIGNING_SECRET={NEXT}\n")).unwrap();
    until_some("the old secret counts no more", async || (send().await == 401).then_some(())).await;
    // Both secrets, while they rotate.
    std::fs::write(&path, format!("SCALE_CALLBACK_SIGNING_SECRET=\"{NEXT} {SECRET}\"\n")).unwrap();
    (gate.reload)();
    assert_eq!(send().await, 200);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_alone_is_accepted_with_its_own_flag_and_never_otherwise() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    std::fs::write(setup.keys.path(), format!("SCALE_CALLBACK_AUTH_KEY={AUTH}\n")).unwrap();
    let refused = Gate::bind(setup.config.clone()).await.err().unwrap().to_string();
    assert!(refused.contains("SCALE_CALLBACK_AUTH_KEY"), "{refused}");
    setup.config.keys.static_key = true;
    let gate = setup.start().await;
    let unsigned = good(&fresh_id());
    let unsigned: String =
        unsigned.split_inclusive("\r\n").filter(|line| !line.starts_with("webhook-signature")).collect();
    assert_eq!(status(&exchange(gate.address, unsigned.as_bytes()).await), 200);
    let wrong = unsigned.replace(AUTH, "live_auth_00000000000000000000000000000000");
    assert_eq!(status(&exchange(gate.address, wrong.as_bytes()).await), 401);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_cannot_start_says_so_in_one_sentence() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("no.pem");
    std::fs::write(&pem, "nothing").unwrap();
    let missing = folder.path().join("missing");
    type Change = Box<dyn Fn(&mut Setup)>;
    let cases: Vec<(&str, Change)> = vec![
        ("missing: No such file", {
            let missing = missing.clone();
            Box::new(move |setup| setup.config.keys.file = Some(missing.clone()))
        }),
        (
            "line 2: it is not a line NAME=value",
            Box::new(|setup| std::fs::write(setup.keys.path(), "# keys\nwhsec_x\n").unwrap()),
        ),
        (
            "is set a second time",
            Box::new(|setup| {
                std::fs::write(setup.keys.path(), "SCALE_CALLBACK_HMAC_KEY=a\nSCALE_CALLBACK_HMAC_KEY=b\n").unwrap();
            }),
        ),
        ("SCALE_CALLBACK_SIGNING_SECRET is not set", Box::new(|setup| std::fs::write(setup.keys.path(), "").unwrap())),
        ("can't listen at", {
            let address = taken.local_addr().unwrap();
            Box::new(move |setup| setup.config.listen = address)
        }),
        ("no.pem: ", {
            let pem = pem.clone();
            Box::new(move |setup| setup.config.tls = Some((pem.clone(), pem.clone())))
        }),
        ("missing: No such file", Box::new(move |setup| setup.config.upstream_token = Some(missing.clone()))),
        (
            "one line of printable ASCII",
            Box::new(move |setup| {
                std::fs::write(&pem, "two\nlines").unwrap();
                setup.config.upstream_token = Some(pem.clone());
            }),
        ),
    ];
    for (told, change) in cases {
        let mut setup = Setup::before(&recorder);
        change(&mut setup);
        let error =
            Gate::bind(setup.config.clone()).await.err().unwrap_or_else(|| panic!("{told} was taken")).to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{told}: {error}");
    }
}
