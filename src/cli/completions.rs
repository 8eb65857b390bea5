//! `tcfs completions`.

use super::Cli;
use super::output::Output;
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

/// Print completions for a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs completions bash > ~/.local/share/bash-completion/completions/tcfs
  tcfs completions zsh > ~/.zfunc/_tcfs
  tcfs completions fish > ~/.config/fish/completions/tcfs.fish")]
pub struct Completions {
    /// Shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self, out: &Output) -> u8 {
        let mut text = Vec::new();
        generate(self.shell, &mut Cli::command(), "tcfs", &mut text);
        out.raw(&String::from_utf8_lossy(&text));
        0
    }
}
