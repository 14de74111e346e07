//! Arguments about how the installation works: what is paused, endpoints, offsets, instances, the clock.

use clap::{Args, Subcommand};

use super::{PageArgs, whole_number};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeliveryCommand {
    /// Show whether callbacks are delivered, and what is paused.
    #[command(after_help = "Example:\n  callbackd delivery status")]
    Status,
    /// Pause all deliveries, of all teams and on all instances. Attempts that are under way end, and no other begins. Nothing is
    /// lost or given up.
    #[command(after_help = "Example:\n  callbackd delivery pause --reason maintenance")]
    Pause {
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Resume all deliveries. Teams and endpoints that are paused by themselves stay so.
    #[command(after_help = "Example:\n  callbackd delivery resume")]
    Resume,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EndpointsCommand {
    /// List endpoints that were in use lately or have pending callbacks.
    #[command(
        after_help = "PENDING counts up to 1000 callbacks in each queue of an endpoint; 1000+ means that there are more. FIRST DUE is when the first of them became due, or will become due: a time ahead is that of the next retry.\n\nExample:\n  callbackd endpoints list --team team_acme"
    )]
    List {
        /// Only endpoints of this team.
        #[arg(long)]
        team: Option<String>,
        /// Only endpoints in this state: active, failing, limited or paused.
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one endpoint.
    #[command(after_help = "Example:\n  callbackd endpoints get team_acme https://acme.example:443")]
    Get {
        /// The team's id.
        team: String,
        /// The endpoint's scheme, host and port.
        origin: String,
    },
    /// Make the next attempts of all pending callbacks of an endpoint now, for example after a receiver was repaired.
    #[command(after_help = "Example:\n  callbackd endpoints retry team_acme https://acme.example:443")]
    Retry {
        /// The team's id.
        team: String,
        /// The endpoint's scheme, host and port.
        origin: String,
    },
    /// Pause the deliveries of a team to one endpoint. Its callbacks wait, and those for other endpoints go on.
    #[command(after_help = "Example:\n  callbackd endpoints pause team_acme https://acme.example:443")]
    Pause {
        /// The team's id.
        team: String,
        /// The endpoint's scheme, host and port.
        origin: String,
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Resume the deliveries to an endpoint.
    #[command(after_help = "Example:\n  callbackd endpoints resume team_acme https://acme.example:443")]
    Resume {
        /// The team's id.
        team: String,
        /// The endpoint's scheme, host and port.
        origin: String,
    },
    /// Send a signed test callback to a URL from the daemon's network, and show each step.
    #[command(
        after_help = "The exit status is 1 if the receiver does not answer with 2xx.\n\nExample:\n  callbackd endpoints check team_acme https://acme.example/callbacks"
    )]
    Check {
        /// The team's id.
        team: String,
        /// The URL to try.
        url: String,
        /// The mode whose keys sign the callback: live or test.
        #[arg(long, default_value = "test")]
        mode: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClockCommand {
    /// Set the store's clock to the wall clock. callbackd status says when this is needed: while the two are more than 60 s
    /// apart, no callback ends and nothing is pruned.
    #[command(after_help = "Example:\n  callbackd clock accept")]
    Accept,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum OffsetsCommand {
    /// Show the watermark of every partition, and how far it is behind.
    #[command(after_help = "Example:\n  callbackd offsets show")]
    Show,
    /// Start the partitions that wait because their offsets in Kafka were written by another store.
    #[command(after_help = "Example:\n  callbackd offsets accept --from committed")]
    Accept {
        /// Where to start. earliest: at the first record that Kafka still holds. This sends callbacks again that the other
        /// store had sent. committed: at the other store's watermark. This loses callbacks that were pending there. end:
        /// after the last record. This also loses the callbacks of all records that were not read.
        #[arg(long, value_parser = ["earliest", "committed", "end"])]
        from: String,
    },
    /// Read records again from an earlier place. Callbacks that the store knows, pending or ended, are not sent again: only those
    /// that it does not know are made, for example after they were lost. It is done for the partitions that the daemon reads.
    #[command(
        after_help = "Records that are older than retention.settled may be of callbacks that the store does not know any more; these would be sent again, so the command asks first, or needs --yes.\n\nExample:\n  callbackd offsets rewind --to 2h --dry-run"
    )]
    Rewind(RewindArgs),
    /// Leave records of one partition out: read it on from a later place. The records between its watermark and that place are
    /// never read, and their callbacks are lost, except those that are in the store already.
    #[command(
        after_help = "The command asks first, or needs --yes.\n\nExample:\n  callbackd offsets skip --topic tasks.events --partition 0 --to end --dry-run"
    )]
    Skip(SkipArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RewindArgs {
    /// From where. How long ago (2h, 7d) or a time (RFC 3339, or a date): from the first record of that time or later. earliest:
    /// from the first record that Kafka still holds. Or an offset, with --partition.
    #[arg(long, value_name = "WHERE")]
    pub(in crate::cli) to: String,
    /// Only partitions of this topic.
    #[arg(long)]
    pub(in crate::cli) topic: Option<String>,
    /// Only this partition. With several topics, it needs --topic.
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>)]
    pub(in crate::cli) partition: Option<u32>,
    #[command(flatten)]
    pub(in crate::cli) consent: ConsentArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SkipArgs {
    /// To where: the offset of the first record that is read, or how long ago (2h), or a time: the first record of that time or
    /// later. end: only records that come from now on are read.
    #[arg(long, value_name = "WHERE")]
    pub(in crate::cli) to: String,
    /// The topic of the partition. It can be left out if only one topic is read.
    #[arg(long)]
    pub(in crate::cli) topic: Option<String>,
    /// The partition.
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>)]
    pub(in crate::cli) partition: u32,
    #[command(flatten)]
    pub(in crate::cli) consent: ConsentArgs,
}

/// Whether a watermark is moved, and whether the user was asked.
#[derive(Debug, Args)]
pub(in crate::cli) struct ConsentArgs {
    /// Move nothing. Show for each partition from where to where it would be moved, and how many records that is.
    #[arg(long, conflicts_with = "yes")]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum InstancesCommand {
    /// List the instances on this store, the newest first: those that run, and the last ones that ended or died.
    #[command(after_help = "Example:\n  callbackd instances list")]
    List,
}
