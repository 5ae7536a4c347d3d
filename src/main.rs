#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc at its start. Freed memory goes back to the system at once
/// (its default is ten seconds), by a thread of its own: reading a 200 MB file
/// from the store goes through that much memory in a second. Arenas are few,
/// because each keeps free memory of its own.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 68] =
    b"background_thread:true,dirty_decay_ms:30,muzzy_decay_ms:0,narenas:2\0";

fn main() -> std::process::ExitCode {
    offpeak::cli::main()
}
