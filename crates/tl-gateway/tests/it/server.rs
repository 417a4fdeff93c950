//! A server for one test: engine in a folder of its own, gateway on a free port.

use std::net::SocketAddr;

use serde_json::Value;
use tl_engine::service::Service;
use tl_engine::{Engine, EngineSettings};
use tl_gateway::{Drained, Gateway, GatewaySettings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::http::{Reply, Wire};
use crate::openapi;

pub struct Server {
    pub address: SocketAddr,
    engine: Option<Engine>,
    service: Service,
    stop: Option<oneshot::Sender<()>>,
    gateway: Option<JoinHandle<Drained>>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Server {
        Server::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut GatewaySettings)) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let settings = EngineSettings {
            data_dir: folder.path().to_owned(),
            groups: 8,
            ..EngineSettings::default()
        };
        let engine = Engine::open(&settings).unwrap();
        engine.wait_ready().await.unwrap();
        let mut settings = GatewaySettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            // All tests hold on both ways; the test command runs them on each.
            hot_appends: std::env::var_os("TL_TEST_GENERAL_WAY").is_none(),
            ..GatewaySettings::default()
        };
        change(&mut settings);
        let gateway = Gateway::bind(settings, engine.service()).await.unwrap();
        let address = gateway.address();
        let (stop, stopped) = oneshot::channel();
        let serving = gateway.serve(async move {
            let _ = stopped.await;
        });
        Server {
            address,
            service: engine.service(),
            engine: Some(engine),
            stop: Some(stop),
            gateway: Some(tokio::spawn(serving)),
            _folder: folder,
        }
    }

    pub fn service(&self) -> &Service {
        &self.service
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// Ends the engine; the gateway goes on.
    pub async fn end_engine(&mut self) {
        let engine = self.engine.take().unwrap();
        tokio::task::spawn_blocking(|| engine.shutdown()).await.unwrap();
    }

    /// Asks the gateway to stop; the result completes when it has.
    pub fn stop(&mut self) -> JoinHandle<Drained> {
        self.stop.take().unwrap().send(()).unwrap();
        self.gateway.take().unwrap()
    }

    pub async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// One request on a connection of its own; the reply is held against the description.
    pub async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Reply {
        let mut wire = self.connect().await;
        wire.request(method, target, headers, body).await;
        let reply = wire.reply(method).await;
        openapi::check(method, target, &reply);
        reply
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], None).await
    }

    pub async fn post(&self, target: &str, body: &Value) -> Reply {
        self.send("POST", target, body).await
    }

    pub async fn send(&self, method: &str, target: &str, body: &Value) -> Reply {
        let body = body.to_string();
        let json = [("content-type", "application/json")];
        self.ask(method, target, &json, Some(body.as_bytes())).await
    }

    /// Makes a session.
    pub async fn session(&self, id: &str) {
        let reply = self.post("/v1/sessions", &serde_json::json!({ "id": id })).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }

    /// Appends one event of producer `p`.
    pub async fn append(&self, id: &str, producer_seq: u64) -> Reply {
        let reply =
            self.post(&format!("/v1/sessions/{id}/append"), &event("p", producer_seq)).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply
    }
}

/// Large events, more than the kernel holds for a socket on both sides.
pub const FLOOD_EVENTS: u64 = 40;

/// A small valid event.
pub fn event(producer: &str, producer_seq: u64) -> Value {
    serde_json::json!({
        "type": "note",
        "payload": {"n": producer_seq},
        "producer_id": producer,
        "producer_seq": producer_seq,
    })
}

impl Server {
    /// Appends large events.
    pub async fn flood(&self, id: &str, events: u64) {
        for n in 1..=events {
            let mut large = event("p", n);
            large["payload"] = serde_json::json!({"text": "x".repeat(500_000)});
            let reply = self.post(&format!("/v1/sessions/{id}/append"), &large).await;
            assert_eq!(reply.status, 201);
        }
    }

    /// Waits until the metrics have this line.
    pub async fn metric(&self, line: &str) {
        loop {
            let text = String::from_utf8(self.get("/metrics").await.body).unwrap();
            if text.lines().any(|seen| seen == line) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Server {
    /// A tail that has been given nothing of what there is.
    pub async fn tail_behind(&self, id: &str) -> tl_engine::service::Tail {
        let caller = tl_engine::api::Caller {
            principal: tl_types::Principal::open_access(),
            namespace: tl_types::Namespace::default_namespace(),
            deadline: std::time::Instant::now() + crate::http::PATIENCE,
            request_id: None,
        };
        let id = tl_types::SessionId::new(id).unwrap();
        let from = tl_engine::api::TailFrom::After(tl_types::Seq(0));
        self.service.open_tail(&caller, &id, from, Default::default()).await.unwrap()
    }
}
