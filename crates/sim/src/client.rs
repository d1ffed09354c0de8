//! Somebody outside who sends requests, and sends them again until they are answered for good.

use std::sync::Arc;

use frontrow_app::UseCases;
use futures_util::future::join_all;

use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::monitor::{Bytes, Kind, Verdict};
use crate::world::{NodeRun, World};

/// A client and the node that it mostly talks to.
pub(crate) struct Client {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) name: String,
    node: usize,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(crate) enum End<T> {
    /// It is done, as this node said; the answer was new, or an earlier one.
    Done { answer: T, run: Option<NodeRun>, replayed: bool },
    /// It was refused.
    Refused,
    /// It is not known whether it is done, and it cannot be sent again.
    Unknown,
}

impl<T> End<T> {
    pub(crate) fn answer(self) -> Option<T> {
        match self {
            Self::Done { answer, .. } => Some(answer),
            Self::Refused | Self::Unknown => None,
        }
    }
}

impl Client {
    pub(crate) fn new(cluster: Arc<Cluster>, name: String) -> Self {
        let node = cluster.any();
        Self { cluster, name, node }
    }

    pub(crate) fn world(&self) -> &World {
        &self.cluster.world
    }

    pub(crate) fn doing(&self, what: &'static str) {
        self.world().doing(&self.name, Some(what));
    }

    /// Mostly the same node.
    fn choose(&mut self) -> usize {
        if self.world().chance(0.15) {
            self.node = self.cluster.any();
        }
        self.node
    }

    /// Sends a request once. A broken connection leaves everything open.
    pub(crate) async fn ask<T, F>(
        &self,
        node: usize,
        kind: Kind,
        request: u64,
        handler: impl FnOnce(UseCases) -> F,
    ) -> (Option<NodeRun>, Verdict<T>)
    where
        T: Bytes + Send + 'static,
        F: Future<Output = Verdict<T>> + Send + 'static,
    {
        let heard = self.cluster.send(node, request, handler).await;
        let verdict = heard.answer.unwrap_or(Verdict::Unknown);
        self.cluster.monitor.judge(heard.attempt, kind, &verdict);
        (heard.run, verdict)
    }

    /// Sends a request until it is answered for good, sometimes twice at once. One that cannot be repeated is sent again only
    /// where it is known that nothing was written.
    pub(crate) async fn insist<T, F>(
        &mut self,
        (request, kind): (u64, Kind),
        can_repeat: bool,
        handler: impl Fn(UseCases) -> F,
    ) -> End<T>
    where
        T: Bytes + Send + 'static,
        F: Future<Output = Verdict<T>> + Send + 'static,
    {
        loop {
            let mut nodes = vec![self.choose()];
            if can_repeat && self.world().strikes(Fault::TwiceAtOnce) {
                self.world().count(Fault::TwiceAtOnce);
                nodes.push(self.cluster.any());
            }
            let asked = nodes.iter().map(|node| self.ask(*node, kind, request, &handler));
            let verdicts = join_all(asked).await;
            let mut refusal = None;
            let mut is_open = false;
            for (run, verdict) in verdicts {
                match verdict {
                    Verdict::Done { answer, replayed } => return End::Done { answer, run, replayed },
                    Verdict::Refused(why) => refusal = Some(why),
                    Verdict::NotNow | Verdict::Internal(_) => is_open = true,
                    Verdict::Unknown if can_repeat => is_open = true,
                    Verdict::Unknown => return End::Unknown,
                }
            }
            if let Some(why) = refusal.filter(|_| !is_open) {
                self.world().note(format_args!("{}: refused: {why}", self.name));
                return End::Refused;
            }
            // Another node may be up.
            self.node = self.cluster.any();
            self.world().sleep(self.world().millis(200, 1_500)).await;
        }
    }

    /// A request with a key that was answered may come again: it gets the same answer.
    pub(crate) async fn come_again<F>(&self, request: u64, handler: impl FnOnce(UseCases) -> F)
    where
        F: Future<Output = Verdict<Vec<u8>>> + Send + 'static,
    {
        if !self.world().strikes(Fault::AgainLater) {
            return;
        }
        self.world().count(Fault::AgainLater);
        self.world().sleep(self.world().millis(0, 10_000)).await;
        let (_, verdict) = self.ask(self.cluster.any(), Kind::Once, request, handler).await;
        match verdict {
            Verdict::Refused(why) => {
                self.world()
                    .violate(format_args!("a request that was done is refused when it comes again: {why}"));
            }
            Verdict::Done { replayed: false, .. } => {
                self.world().violate("a request that was done is done again when it comes again");
            }
            Verdict::Done { .. } | Verdict::NotNow | Verdict::Unknown | Verdict::Internal(_) => {}
        }
    }
}
