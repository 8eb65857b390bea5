//! `ignore`: which paths stay on their machine, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `--build-dirs` keeps here: what tools build or fetch again from what is in the drive.
pub const BUILD_DIRS: &[&str] = &[
    "target/",        // Cargo, Maven
    "node_modules/",  // npm, yarn, pnpm
    ".venv/",         // Python, uv
    "venv/",          // Python
    "__pycache__/",   // Python
    ".tox/",          // tox
    ".mypy_cache/",   // mypy
    ".pytest_cache/", // pytest
    ".ruff_cache/",   // ruff
    "*.egg-info/",    // setuptools
    ".direnv/",       // direnv
    "dist/",          // bundlers
    ".next/",         // Next.js
    ".nuxt/",         // Nuxt
    ".turbo/",        // Turborepo
    ".parcel-cache/", // Parcel
    ".gradle/",       // Gradle
    ".zig-cache/",    // Zig
    "zig-out/",       // Zig
    "dist-newstyle/", // Cabal
    ".stack-work/",   // Stack
    "_build/",        // dune, mix
    "cmake-build-*/", // CLion
    ".terraform/",    // Terraform
    "DerivedData/",   // Xcode
];

/// Arguments of [`super::Request::Ignore`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ignore {
    /// PATH of the directory in whose `.tcfsignore` lines are added; what counts there is told otherwise.
    #[serde(default)]
    pub dir: String,
    /// Lines to add.
    #[serde(default)]
    pub add: Vec<String>,
    /// PATHs of which it is asked by which rule they stay here.
    #[serde(default)]
    pub check: Vec<String>,
}

/// Who keeps a path here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleOf {
    /// Nobody: it is carried, or would be.
    #[default]
    Nobody,
    /// The built-in list.
    BuiltIn,
    /// `sync_git_dirs = false`.
    Git,
    /// `exclude_patterns` of the configuration.
    Configuration,
    /// A `.tcfsignore`.
    IgnoreFile,
    /// It is in a directory that stays here.
    Directory,
    /// It is a socket, fifo or device node, or was moved here from where it stayed.
    Kind,
}

/// Why a path stays here, or that it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IgnoredPath {
    /// Namespace path.
    pub path: String,
    /// Who.
    pub by: RuleOf,
    /// The pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The `.tcfsignore`, or the directory that stays here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The fleet has it already: the rule came later, and it goes on being carried.
    pub carried: bool,
}

/// To `ignore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ignoring {
    /// Namespace path of the `.tcfsignore` that lines were added to, or whose lines these are.
    pub file: String,
    /// Its lines, after the change.
    pub lines: Vec<String>,
    /// Lines that were added.
    pub added: Vec<String>,
    /// Topmost paths that these keep here from now on, and that the fleet has already: they go on being carried. At most 20.
    pub carried: Vec<String>,
    /// How many there are.
    pub carried_count: u64,
    /// Paths that were asked about and are carried, or would be.
    pub not_ignored: u64,
}
