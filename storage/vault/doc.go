// Package vault is the backup repository of one device: encrypted, deduplicated
// bytes in segments that peers hold.
//
// An object is a stream of bytes: the content of a file, the listing of a
// directory. It is cut into blobs, the unit of deduplication; blobs are sealed
// and collected in packs of at most 16 MiB; a pack is one segment. A Ref names
// an object. A Session writes objects and, in the end, one snapshot; a Reader
// gives them back.
//
// What stands where on the segments' side (docs/format.md has the bytes):
//
//	head       signed, numbered, chained; names the parts of the catalogue
//	catalogue  the segments of the vault, and for each snapshot its sealed
//	           record and the segments that it needs
//	packs      blobs, each pack with its own table of contents
//
// The local directory holds
//
//	secrets    the vault's keys (mode 0600)
//	heads/     the newest links of the head chain, each fsynced before it was sent
//	borrowed   is there when the index was made from a head that only peers had
//	index.db   where each blob is: a cache. A broken one is set aside and made
//	           anew from catalogue and tables of contents
//	deletions/ what was pruned and is not deleted by all members yet
//	past.db    where the blobs of forgotten snapshots are, while they are read
//	state/     for storage/snapshot: what was seen at the last backup
//
// A pack enters the index only after its segment is committed, so a process
// that is killed leaves at most segments that nothing refers to; all that was
// committed before is found by the next session and not sent again.
//
// Prune runs beside a session. What it wants to drop it condemns first, in one
// transaction and under a lock that is held for as long: a session counts on
// nothing that is condemned, and nothing is condemned that the session counts
// on. Then it copies, then comes the head without the condemned segments, and
// once others have that head the holders are told to delete them.
package vault

import (
	"errors"

	"gotong/storage/seal"
)

// Errors of this package. Test with errors.Is.
var (
	// ErrBusy: another session writes to the vault, or another process has it open.
	ErrBusy = errors.New("vault is busy")
	// ErrNewerHead: peers hold a head of this vault that this device has not
	// made or has forgotten: its disk was restored or cloned, or lost its heads.
	ErrNewerHead = errors.New("peers know a newer state of this vault")
	// ErrRollback: this disk lost its heads, and peers know only heads older than
	// one that this device gave them.
	ErrRollback = errors.New("peers know only an older state of this vault")
	// ErrNoVault: the directory holds no vault.
	ErrNoVault = errors.New("no vault here")
	// ErrExists: the directory holds a vault already.
	ErrExists = errors.New("there is a vault already")
	// ErrNoSnapshot: no snapshot has that id.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrAmbiguous: several snapshots begin with that prefix.
	ErrAmbiguous = errors.New("several snapshots begin so")
)

// Bounds of blobs and packs; part of the format.
const (
	maxBlobBytes = 4 << 20 // plaintext of a blob
	maxPackBlobs = 1 << 14 // bounds the table of contents
	maxRefDepth  = 8       // lists of lists
)

// How the bytes of a blob stand in its sealed form.
const (
	encodingRaw  = 1
	encodingZstd = 2
)

// maxSealedBytes is the longest sealed blob. What compression would make
// longer is stored as it is.
const maxSealedBytes = maxBlobBytes + seal.Overhead
