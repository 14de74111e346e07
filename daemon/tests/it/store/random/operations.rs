//! One random operation at a time.

use std::time::Duration;

use callbackd::deliver::resolve::queue_of;
use callbackd::store::{EngineStore as _, EventClaim};

use super::changes::LEASE;
use super::ids;
use super::world::World;

impl World {
    pub(super) async fn step(&mut self) {
        match self.below(200) {
            0..70 => self.writes().await,
            70..74 => self.repeats().await,
            74..76 => self.writes_out_of_turn().await,
            76..104 => self.claims().await,
            104..124 => self.time_passes(),
            124..132 => self.frees_leases().await,
            132..146 => self.amends().await,
            146..156 => self.works_on_a_job().await,
            156..160 => self.resends_a_letter().await,
            160..162 => self.discards_a_letter().await,
            162..165 => self.retries_a_queue().await,
            165..171 => self.takes().await,
            171..173 => self.releases().await,
            173..175 => self.starts_over().await,
            175..178 => self.pulses().await,
            178..180 => self.begins_anew().await,
            180 => self.dies().await,
            181..184 => self.looks_up().await,
            184..187 => self.claims_event_ids().await,
            187..190 => self.sweeps().await,
            190..195 => self.prunes().await,
            _ => self.publishes().await,
        }
    }

    /// What a run has come to, so that a reader sees that it was no empty one.
    pub(super) fn seen(&self) -> String {
        let (durable, delivered, pruned) = (self.durable.len(), self.delivered.len(), self.pruned.len());
        format!("{durable} records, {delivered} delivered, {pruned} pruned")
    }

    fn time_passes(&mut self) {
        let by = match self.below(40) {
            0..22 => self.below(5_000),
            22..32 => self.below(60_000),
            32..36 => self.below(3_600_000),
            _ => self.below(36 * 3_600_000),
        };
        self.clock.advance(Duration::from_millis(by));
        let now = self.now();
        self.log.note(format!("{by} ms pass: it is {now}"));
    }

    async fn frees_leases(&mut self) {
        let seat = self.seat();
        self.log.note(format!("{seat} frees leases"));
        let freed = self.seats[seat].engine.free_leases(LEASE).await.unwrap();
        self.same(&freed, &self.model.free_leases(LEASE).await.unwrap(), "leases that ended");
    }

    async fn looks_up(&mut self) {
        let seat = self.seat();
        let ids: Vec<_> = (0..8).map(|_| ids::callback(self.record())).collect();
        self.log.note(format!("{seat} looks up {:?}", ids.iter().map(|id| ids::number(*id)).collect::<Vec<_>>()));
        let known = self.seats[seat].engine.known(ids.clone()).await.unwrap();
        self.same(&known, &self.model.known(ids).await.unwrap(), "known ids");
    }

    async fn claims_event_ids(&mut self) {
        let seat = self.seat();
        let mut claims = Vec::new();
        for _ in 0..1 + self.below(6) {
            claims.push(EventClaim { hash: [self.below(30) as u8; 32], id: ids::callback(self.record()) });
        }
        let told: Vec<_> = claims.iter().map(|claim| (claim.hash[0], ids::number(claim.id))).collect();
        self.log.note(format!("{seat} claims event ids {told:?}"));
        let winners = self.seats[seat].engine.claim_event_ids(claims.clone()).await.unwrap();
        self.same(&winners, &self.model.claim_event_ids(claims).await.unwrap(), "owners of event ids");
    }

    /// A sweep changes nothing that can be seen, because nothing needs a repair.
    async fn sweeps(&mut self) {
        let seat = self.seat();
        self.log.note(format!("{seat} sweeps"));
        self.seats[seat].engine.sweep(queue_of).await.unwrap();
    }
}
