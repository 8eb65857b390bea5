//! What the file system is like: FSSTAT, FSINFO, PATHCONF.

use super::convert::{after, status};
use super::procedures::Nfs;
use super::wire::{Args, DATA_MAX, Garbage};
use crate::vfs::LINKS_MAX;
use nfs3_types::nfs3::*;

impl Nfs {
    pub(super) fn fsstat(&self, mut a: Args<'_>) -> std::result::Result<FSSTAT3res, Garbage> {
        let fh = a.handle()?;
        a.end()?;
        let found = self.object(&fh).and_then(|o| Ok((o, self.vfs.statfs().map_err(|e| status(&e))?)));
        Ok(match found {
            Ok((o, s)) => {
                let bytes = |blocks: u64| blocks.saturating_mul(u64::from(s.block));
                Nfs3Result::Ok(FSSTAT3resok {
                    obj_attributes: after(Some(&o), self.secret.fsid),
                    tbytes: bytes(s.blocks),
                    fbytes: bytes(s.free),
                    abytes: bytes(s.available),
                    tfiles: s.files,
                    ffiles: s.files_free,
                    afiles: s.files_free,
                    invarsec: 0,
                })
            }
            Err(e) => Nfs3Result::Err((e, FSSTAT3resfail { obj_attributes: self.post_of(&fh) })),
        })
    }

    pub(super) fn fsinfo(&self, mut a: Args<'_>) -> std::result::Result<FSINFO3res, Garbage> {
        let fh = a.handle()?;
        a.end()?;
        Ok(match self.object(&fh) {
            Ok(o) => Nfs3Result::Ok(FSINFO3resok {
                obj_attributes: after(Some(&o), self.secret.fsid),
                rtmax: DATA_MAX,
                rtpref: DATA_MAX,
                rtmult: 4096,
                wtmax: DATA_MAX,
                wtpref: DATA_MAX,
                wtmult: 4096,
                dtpref: 64 << 10,
                maxfilesize: i64::MAX as u64,
                time_delta: nfstime3 { seconds: 0, nseconds: 1 },
                properties: FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME,
            }),
            Err(e) => Nfs3Result::Err((e, FSINFO3resfail { obj_attributes: post_op_attr::None })),
        })
    }

    pub(super) fn pathconf(&self, mut a: Args<'_>) -> std::result::Result<PATHCONF3res, Garbage> {
        let fh = a.handle()?;
        a.end()?;
        Ok(match self.object(&fh) {
            Ok(o) => Nfs3Result::Ok(PATHCONF3resok {
                obj_attributes: after(Some(&o), self.secret.fsid),
                linkmax: LINKS_MAX as u32,
                name_max: 255,
                no_trunc: true,
                chown_restricted: true,
                case_insensitive: false,
                case_preserving: true,
            }),
            Err(e) => Nfs3Result::Err((e, PATHCONF3resfail { obj_attributes: post_op_attr::None })),
        })
    }
}
