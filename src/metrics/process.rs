//! The process, by the names that Prometheus' own clients give: those of Go, Java and
//! Python tell the same, so that ready-made dashboards and alerts work.

use prometheus_client::registry::Registry;

/// On Linux; elsewhere there is no `/proc` to read, and nothing is told.
#[cfg(not(target_os = "linux"))]
pub fn register(_registry: &mut Registry) {}

#[cfg(target_os = "linux")]
pub fn register(registry: &mut Registry) {
    match linux::read() {
        Ok(process) => process.register(registry),
        Err(error) => tracing::warn!(%error, "the process cannot be read"),
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::{
        ProcResult, WithCurrentSystemInfo,
        process::{LimitValue, Process},
        ticks_per_second,
    };
    use prometheus_client::{
        metrics::{counter::ConstCounter, gauge::ConstGauge},
        registry::{Registry, Unit},
    };

    pub struct Read {
        cpu_seconds: f64,
        /// None where there is no `/proc/stat`, as behind systemd's `ProcSubset=pid`.
        started: Option<f64>,
        resident: u64,
        virtual_: u64,
        open_fds: u64,
        max_fds: u64,
        threads: u64,
    }

    pub fn read() -> ProcResult<Read> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = ticks_per_second() as f64;
        let boot = procfs::boot_time_secs().ok();
        let max_fds = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(most) => most,
            LimitValue::Unlimited => u64::MAX,
        };
        Ok(Read {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            started: boot.map(|boot| boot as f64 + stat.starttime as f64 / ticks),
            resident: stat.rss_bytes().get(),
            virtual_: stat.vsize,
            open_fds: process.fd_count()? as u64,
            max_fds,
            threads: stat.num_threads.max(0) as u64,
        })
    }

    impl Read {
        pub fn register(self, registry: &mut Registry) {
            registry.register_with_unit(
                "process_cpu",
                "User and system time",
                Unit::Seconds,
                ConstCounter::new(self.cpu_seconds),
            );
            if let Some(started) = self.started {
                registry.register_with_unit(
                    "process_start_time",
                    "When the process was started, since the Unix epoch",
                    Unit::Seconds,
                    ConstGauge::new(started),
                );
            }
            for (name, help, bytes) in [
                ("process_resident_memory", "Resident memory", self.resident),
                ("process_virtual_memory", "Virtual memory", self.virtual_),
            ] {
                registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(bytes));
            }
            for (name, help, count) in [
                ("process_open_fds", "Open file descriptors", self.open_fds),
                (
                    "process_max_fds",
                    "File descriptors that may be open",
                    self.max_fds,
                ),
                ("process_threads", "Threads", self.threads),
            ] {
                registry.register(name, help, ConstGauge::new(count));
            }
        }
    }
}
