//! Certificates, and the permissions of users.

use std::time::{Duration, Instant};

use breaker_tests::certificates::Authority;
use breaker_tests::etcd::{Cluster, Options};
use breaker_tests::slowness;
use breaker_user::fleet::engine::{Endpoints, Engine, Error, Kind, Tls, Update};

fn cluster() -> Cluster {
    Cluster::start_with(Options { tls: true, ..Options::new(3) })
}

fn with_files(cluster: &Cluster, tls: Tls) -> Endpoints {
    Endpoints { tls: Some(tls), ..cluster.endpoints() }
}

/// Checks the kind of an error, and that the call did not wait for its deadline.
#[track_caller]
fn assert_refused(kind: Kind, started: Instant, found: Result<(), Error>) {
    let error = found.expect_err("a refusal");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(started.elapsed() < Duration::from_secs(2) * slowness(), "{:?}: {error}", started.elapsed());
}

#[tokio::test]
async fn a_client_with_a_certificate_of_the_authority_is_served() {
    let cluster = cluster();
    let engine = Engine::new(&cluster.endpoints_of("router-1")).expect("an engine");
    engine.create("/f/a", b"", &[]).await.expect("creating");
    assert_eq!(engine.snapshot("/f/").await.expect("reading").entries.len(), 1);
}

#[tokio::test]
async fn certificates_that_the_other_side_does_not_trust_are_refused_at_once() {
    let cluster = cluster();
    let good = cluster.authority().sign("good", None);
    let stranger = Authority::new(cluster.directory(), "stranger");
    let strange = stranger.sign("strange", None);
    let expired = cluster.authority().sign_expired("expired", None);
    let cases = [
        ("the client trusts another authority", Tls { ca: strange.ca.clone(), ..good.clone() }),
        ("another authority signed the client", Tls { ca: good.ca.clone(), ..strange }),
        ("the client's certificate has expired", expired),
    ];
    for (case, files) in cases {
        println!("{case}");
        let engine = Engine::new(&with_files(&cluster, files)).expect("an engine");
        let start = Instant::now();
        assert_refused(Kind::Certificate, start, engine.snapshot("/f/").await.map(|_| ()));
    }
}

#[tokio::test]
async fn a_wrong_file_is_named() {
    let cluster = Cluster::start(1);
    let good = cluster.authority().sign("good", None);
    let other = cluster.authority().sign("other", None);
    let empty = cluster.directory().join("empty.pem");
    std::fs::write(&empty, "").expect("writing");
    let absent = cluster.directory().join("absent.pem");
    let urls = vec!["https://127.0.0.1:1".to_owned()];
    let cases = [
        (Tls { ca: empty.clone(), ..good.clone() }, "empty.pem"),
        (Tls { cert: absent, ..good.clone() }, "absent.pem"),
        (Tls { key: empty, ..good.clone() }, "empty.pem"),
        (Tls { key: good.cert.clone(), ..good.clone() }, "good.pem"),
        (Tls { key: other.key, ..good }, "other.key"),
    ];
    for (tls, name) in cases {
        let error =
            Engine::new(&Endpoints { urls: urls.clone(), tls: Some(tls) }).err().expect("a wrong file");
        assert_eq!(error.kind(), Kind::Setup);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_user_may_only_do_what_the_role_allows() {
    let cluster = cluster();
    cluster.enable_auth(&[("operator", "readwrite", "/f/trip/"), ("viewer", "read", "/f/")]);
    let engine = |user: &str| Engine::new(&cluster.endpoints_of(user)).expect("an engine");
    let (operator, viewer, nobody) = (engine("operator"), engine("viewer"), engine("nobody"));
    operator.create("/f/trip/all", b"", &[]).await.expect("the operator may trip");
    viewer.snapshot("/f/").await.expect("the viewer may read");
    let start = Instant::now();
    assert_refused(Kind::Denied, start, operator.create("/f/reset/1", b"", &[]).await.map(|_| ()));
    let also = [("/f/reset/1".to_owned(), Vec::new())];
    let start = Instant::now();
    assert_refused(Kind::Denied, start, operator.create("/f/trip/host/h", b"", &also).await.map(|_| ()));
    let start = Instant::now();
    assert_refused(Kind::Denied, start, viewer.create("/f/trip/host/h", b"", &[]).await.map(|_| ()));
    let start = Instant::now();
    assert_refused(Kind::Denied, start, nobody.snapshot("/f/").await.map(|_| ()));
    let keys: Vec<_> = viewer.snapshot("/f/").await.expect("reading").entries.into_keys().collect();
    assert_eq!(keys, ["/f/trip/all"]);
}

#[tokio::test]
async fn a_watch_without_the_permission_says_so() {
    let cluster = cluster();
    cluster.enable_auth(&[("viewer", "read", "/f/hosts/")]);
    let viewer = Engine::new(&cluster.endpoints_of("viewer")).expect("an engine");
    let mut watch = viewer.watch("/f/trip/", 1);
    let lost = async {
        loop {
            if let Update::Lost { error, .. } = watch.next().await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(3) * slowness(), lost).await.expect("an error");
    assert!(error.contains("permission denied"), "{error}");
}
