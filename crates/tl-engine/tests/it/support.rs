use std::path::Path;
use std::time::{Duration, Instant};

use tl_engine::api::{Append, Appended, Caller, CreateSession, ServiceError};
use tl_engine::{Engine, EngineSettings, Service};
use tl_types::{Namespace, Principal, Seq, SessionId};
use tl_wire::{AppendBody, SealedEvent};

pub fn settings(dir: &Path) -> EngineSettings {
    EngineSettings {
        data_dir: dir.to_owned(),
        groups: 16,
        memtable_bytes: 1 << 20,
        ..EngineSettings::default()
    }
}

pub async fn start(dir: &Path) -> Engine {
    let settings = settings(dir);
    let engine = Engine::open(&settings).expect("the engine opens");
    engine.wait_ready().await.expect("the engine gets ready");
    engine
}

pub async fn stop(engine: Engine) {
    tokio::task::spawn_blocking(move || engine.shutdown()).await.unwrap();
}

pub fn caller() -> Caller {
    Caller {
        principal: Principal::open_access(),
        namespace: Namespace::default_namespace(),
        deadline: Instant::now() + Duration::from_secs(30),
        request_id: None,
    }
}

pub fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

pub async fn create(service: &Service, name: &str) {
    let request = CreateSession { id: Some(id(name)), ..CreateSession::default() };
    service.create_session(&caller(), request).await.unwrap();
}

pub fn event(producer: &str, seq: u64, text: &str) -> SealedEvent {
    let body = format!(
        r#"{{"type":"message","payload":{{"text":{text:?}}},"producer_id":"{producer}","producer_seq":{seq}}}"#
    );
    let AppendBody::Single(append) = AppendBody::parse(body.as_bytes()).unwrap() else {
        unreachable!("one event")
    };
    append.event.seal(&Principal::open_access()).unwrap()
}

pub async fn append(
    service: &Service,
    session: &str,
    events: Vec<SealedEvent>,
) -> Result<Appended, ServiceError> {
    append_at(service, session, events, None).await
}

pub async fn append_at(
    service: &Service,
    session: &str,
    events: Vec<SealedEvent>,
    expected_seq: Option<Seq>,
) -> Result<Appended, ServiceError> {
    let request = Append { events, expected_seq };
    service.append(&caller(), &id(session), request).await.map(|done| done.value)
}
