//! Pods as the database knows them.

use axum::extract::State;
use serde::Serialize;

use super::shapes::{PodShape, ok};
use super::{Reply, Shared};

pub(super) async fn list(State(face): Shared) -> Reply {
    #[derive(Serialize)]
    struct Pods {
        pods: Vec<PodShape>,
        leader: Option<String>,
    }
    let overview = face.service.overview().await?;
    let living: Vec<_> = overview.living().map(|pod| &pod.life).collect();
    ok(&Pods {
        pods: overview
            .pods
            .iter()
            .map(|pod| PodShape::new(pod, living.contains(&&pod.life)))
            .collect(),
        leader: overview.leading().map(|leader| leader.life.pod.to_string()),
    })
}
