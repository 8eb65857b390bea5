//! `tcfs man`.

use super::Cli;
use super::output::Output;
use super::printed::Printed;
use crate::error::{IoContext, Result};
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Print the manual page, or write the pages of all commands into a directory
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs man | man -l -
  tcfs man ~/.local/share/man/man1")]
pub struct Man {
    /// Directory for tcfs.1, tcfs-mount.1 and so on; made if need be
    dir: Option<PathBuf>,
}

impl Man {
    pub fn run(&self, out: &Output) -> Result<u8> {
        let mut command = Cli::command();
        command.build();
        let Some(dir) = &self.dir else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).doing(|| "writing a manual page")?;
            out.raw(&String::from_utf8_lossy(&page));
            return Ok(0);
        };
        std::fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
        clap_mangen::generate_to(command, dir).doing(|| format!("writing manual pages into {}", dir.display()))?;
        let pages = std::fs::read_dir(dir).doing(|| format!("listing {}", dir.display()))?.flatten();
        let pages = pages.filter(|e| e.file_name().to_string_lossy().starts_with("tcfs")).count() as u64;
        out.object(&Printed::Pages { dir: dir.clone(), pages });
        out.line(format!("{pages} manual pages are in {}", dir.display()));
        Ok(0)
    }
}
