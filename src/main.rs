fn main() -> std::process::ExitCode {
    offpeak::cli::main()
}
