#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc at its start. Freed memory goes back to the system after a
/// second (its default is ten), so that a large upload's pages do not stay, and
/// arenas are few, because each keeps free memory of its own.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 47] = b"dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:4\0";

fn main() -> std::process::ExitCode {
    offpeak::cli::main()
}
