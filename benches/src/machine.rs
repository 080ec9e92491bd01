//! Which core a process runs on, what it has used, and how numbers are put together.

use std::time::Duration;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The two cores of a run: one for what is measured, one for what puts load on it and answers it.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// For the proxy.
    pub proxy: usize,
    /// For load and upstream.
    pub load: usize,
}

impl Cores {
    /// The first two cores this process may use.
    ///
    /// # Errors
    /// There is only one.
    pub fn choose() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (proxy, load) = cores.next().zip(cores.next()).context("the load scenarios need two cores")?;
        Ok(Self { proxy, load })
    }
}

/// Moves the calling thread, and what it starts from now on, to one core.
///
/// # Errors
/// The kernel says no.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The time the threads of a process have run so far. Those that have ended do not count.
///
/// # Errors
/// The process is gone.
pub fn process_time(pid: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let ran: u64 = text.split(' ').next().unwrap_or_default().parse()?;
        nanos = nanos.saturating_add(ran);
    }
    Ok(Duration::from_nanos(nanos))
}

/// The time the calling thread has run so far.
#[must_use]
pub fn thread_time() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(at.tv_nsec).unwrap_or_default())
}

/// Resident memory of a process, in MiB.
///
/// # Errors
/// The process is gone.
pub fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u32 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(f64::from(kib) / 1_024.0)
}

/// The machine in one line.
#[must_use]
pub fn describe() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("?", |(_, value)| value.trim())
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, {} MHz, Linux {}", field("model name"), field("cpu MHz"), kernel.trim())
}

/// A count as a number to divide by.
#[must_use]
pub fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The middle value; of an even number of values, the upper of the two. 0 for none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
