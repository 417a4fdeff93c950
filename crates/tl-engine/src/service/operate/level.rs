//! The feature level: what is committed, and raising it by an operator's word.
//!
//! ```text
//!   ask every node now ─► next_level (pure) ─► list with the level, committed on its number
//! ```
//!
//! Between the answers and the commitment a member may start again with an older release. It ends
//! by itself then, as soon as it hears of the list, and nothing of what it holds is lost.

use std::sync::Arc;
use std::time::Instant;

use tl_core::entry::SetMembers;
use tl_core::{Command, Reply};
use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::ErrorCode;
use tokio::task::JoinSet;

use super::{REPORT_WITHIN, Service};
use crate::api::ServiceError;
use crate::ops::level::{Speaker, next_level};
use crate::ops::pages::LevelPage;
use crate::ops::roster::Roster;
use crate::peer::{Answer, Question};
use crate::service::members::{COMMIT_WITHIN, LIST_GROUP};
use crate::service::refused;
use crate::shell::links::Links;
use crate::shell::time;

impl<S: OrderedStore + 'static> Service<S> {
    /// The feature level that is committed, as far as this node has heard. A node that is a cluster
    /// of its own has nobody to agree with: it follows the newest rules that it speaks.
    pub(in crate::service) fn level(&self) -> u16 {
        self.inner.ops.roster.as_ref().map_or(self.inner.level_spoken, Roster::level)
    }

    /// Commits the highest feature level that every node of the cluster speaks. There is no way
    /// back: releases that speak less take no part from then on.
    ///
    /// # Errors
    /// `level_not_raised` when a member is silent or speaks no higher level, when there is none,
    /// or when the list of members has just changed; `raft_unavailable` when nothing was changed because too few members are there;
    /// `raft_timeout` when that is not known: it may be asked again.
    pub async fn ops_raise_level(&self) -> Result<LevelPage, ServiceError> {
        let (Some(links), Some(roster)) = (&self.inner.links, &self.inner.ops.roster) else {
            let what = format!(
                "This node is a cluster of its own: it is at feature level {level}, the highest that \
                 it speaks, and there is nothing to raise",
                level = self.level()
            );
            return Err(self.not_raised(what));
        };
        // Before anybody is asked: who is on it is who has to consent.
        let present = roster.list();
        let speakers = self.speakers(links).await;
        let level = next_level(present.level, &speakers)
            .map_err(|why| self.not_raised(format!("The feature level is not raised: {why}")))?;
        let next = present.raised(level);
        let command = SetMembers { expected: present.number, list: next.encode().into() };
        let entry = self.entry([Command::SetMembers(command)]);
        let deadline = Instant::now() + COMMIT_WITHIN;
        let applied = self.propose_routed(links, deadline, LIST_GROUP, &entry).await?;
        if let Some(Reply::Refused(refusal)) = applied.replies.first() {
            let error = refused(refusal);
            if error.code == ErrorCode::ExpectedVersionConflict {
                let what = "The list of members has just changed: look at `tl ops status` and \
                            decide again";
                return Err(self.not_raised(what.to_owned()));
            }
            return Err(error);
        }
        tracing::warn!(level, number = next.number, "an operator raised the feature level");
        let page = LevelPage { feature_level: level, members_number: next.number };
        self.adopt(roster, next).await;
        Ok(page)
    }

    fn not_raised(&self, what: String) -> ServiceError {
        ServiceError::new(ErrorCode::LevelNotRaised, what)
            .with("feature_level", u64::from(self.level()))
    }

    /// What every node of the cluster says now, in order of their names; who does not answer is
    /// silent.
    async fn speakers(&self, links: &Arc<Links>) -> Vec<Speaker> {
        let mut asked = JoinSet::new();
        for peer in links.others() {
            let (service, links) = (self.clone(), Arc::clone(links));
            asked.spawn(async move {
                Speaker {
                    name: links.name(peer).to_string(),
                    spoken: service.spoken_by(&links, peer).await,
                    is_router: !links.is_member(peer),
                }
            });
        }
        let mut speakers = asked.join_all().await;
        speakers.push(Speaker {
            name: self.inner.info.name.to_string(),
            spoken: Some(self.inner.level_spoken),
            is_router: links.is_router(),
        });
        speakers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        speakers
    }

    async fn spoken_by(&self, links: &Links, peer: PeerId) -> Option<u16> {
        let deadline = Instant::now() + REPORT_WITHIN;
        match links.ask(peer, &Question::Report, deadline).await {
            Ok(Answer::Report(report)) => {
                let spoken = report.level_spoken;
                self.inner.ops.sights.said(peer, report, time::now().boot_ms);
                Some(spoken)
            }
            Ok(_) | Err(_) => None,
        }
    }
}
