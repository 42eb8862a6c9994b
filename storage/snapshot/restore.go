package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gotong/grid/disk"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/vault"
)

// Bounds of a restore.
const (
	minWriters = 2
	maxWriters = 4
	// aheadPieces are located and waiting to be written. Each may hold one
	// directory open.
	aheadPieces = 1024
)

// ErrTarget says that the target of a restore cannot be made or opened.
var ErrTarget = errors.New("target cannot be used")

// RestoreOptions says what to restore and how.
type RestoreOptions struct {
	// Path inside the snapshot: what is below that directory, or that one
	// entry, goes into the target. Empty: everything, from "/" down.
	Path string
	// Include and Exclude are lines of gitignore, relative to Path; a line that
	// begins with Path itself means what is there. With Include only what one of
	// them matches is restored, with all below and the directories on the way.
	// What Exclude matches is neither restored nor deleted.
	Include, Exclude []string
	Compare          Compare
	Overwrite        Overwrite
	// Delete removes what is in restored directories of the target and not in the
	// snapshot, and what stands in the way of entries of another type. Nothing is
	// removed from directories of which the snapshot may not have everything, nor
	// what is mounted, nor sockets.
	Delete bool
	// Never are absolute paths that are not removed with what is below, under any
	// name, such as the peer's own home.
	Never []string
	// DryRun says what would be done, and does nothing.
	DryRun bool
	// Verify reads all files again afterwards, from the disk where the system
	// allows it, and compares them with the hashes of the snapshot.
	Verify bool
	// Done, when set, is called for each entry with what was done, or would be.
	// Calls do not overlap, those of Skipped included.
	Done func(action, path string)
	// Progress, when set, is called a few times a second, and once in the end.
	Progress func(Progress)
	// Skipped, when set, is called for each entry that could not be restored.
	// The restore goes on without it.
	Skipped func(path string, err error)
	Logger  *slog.Logger // nil discards
}

// Compare says how a restore finds out whether a file of the target is already
// as it should be.
type Compare int

const (
	// CompareContent hashes what is there, piece by piece: the file is left alone
	// when all is the same, and only the pieces that differ are fetched.
	CompareContent Compare = iota
	// CompareTimes believes size and modification time, as rsync does, and
	// hashes only when they differ.
	CompareTimes
	// CompareNothing writes everything anew.
	CompareNothing
)

// Overwrite says which entries of the target may be replaced when they differ.
type Overwrite int

const (
	// OverwriteAny replaces all that differ, as restic does.
	OverwriteAny Overwrite = iota
	// OverwriteOlder keeps what was modified later than in the snapshot.
	OverwriteOlder
	// OverwriteNone keeps all that is there and adds what is missing.
	OverwriteNone
)

// What a restore does to an entry of the target.
const (
	ActionNew       = "new"
	ActionReplaced  = "replaced"  // its content, or where it leads to
	ActionMetadata  = "metadata"  // only mode, owner, times or attributes
	ActionUnchanged = "unchanged" // it was as it should be
	ActionKept      = "kept"      // it differs, and RestoreOptions.Overwrite keeps it
	ActionDeleted   = "deleted"
)

// RestoreSummary says what a restore did, or after a dry run would have done.
type RestoreSummary struct {
	Snapshot      vault.Snapshot
	Files         uint64 // regular files that are as in the snapshot now
	Directories   uint64
	Bytes         uint64 // of the files
	FetchedBytes  uint64 // of them, read from the vault
	Actions       map[string]uint64
	Skipped       uint64 // entries that could not be restored
	Lost          uint64 // of them, those of which data is lost
	Unowned       uint64 // entries whose owner or group only root could restore
	Verified      uint64 // files that were read again and are right
	VerifiedBytes uint64
	Duration      time.Duration
}

// ErrCollision says that the file system of the target takes two names of the
// snapshot for the same.
var ErrCollision = errors.New("another entry has the same name on this file system")

// Restore writes a snapshot (an id, the beginning of one, or vault.Latest) into
// the directory target, which is made when it is missing; "/" puts everything
// back to where it was. What is there already is replaced where it has the same
// name and differs, else left alone.
//
// A file is made under another name and gets its own once it is whole, so a
// crash leaves the old one or the new one. What of the old one is right is
// copied, the rest is fetched.
//
// Entries that cannot be restored are skipped and counted, those too of which
// data is lost (storage.ErrLost). When data cannot be had now because too few
// shards answer, or the disk is full, the restore stops: the error is storage.ErrTooFewShards or that of the disk, and what was
// finished until then stays. Other errors: ErrNoPath, ErrPattern, ErrTarget.
func Restore(ctx context.Context, v *vault.Vault, name, target string, options RestoreOptions) (RestoreSummary, error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t, err := openTree(ctx, v, name)
	if err != nil {
		return RestoreSummary{}, err
	}
	defer t.reader.Close()
	r := &restore{reader: t.reader, ctx: ctx, cancel: cancel, options: options, log: options.Logger,
		pieces: make(chan piece, aheadPieces), links: map[linkKey]*linkGroup{}, actions: map[string]uint64{}, left: map[string]bool{}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.exclude, err = newFilter(options.Exclude, nil, options.Path); err != nil {
		return RestoreSummary{}, err
	}
	if r.include, err = newFilter(options.Include, nil, options.Path); err != nil {
		return RestoreSummary{}, err
	}
	node, at, err := t.find(options.Path)
	if err != nil {
		return RestoreSummary{}, err
	}
	var total atomic.Pointer[Progress]
	total.Store(&Progress{})
	if options.Path == "" && len(options.Include)+len(options.Exclude) == 0 {
		total.Store(&Progress{TotalFiles: t.snapshot.Files, TotalBytes: t.snapshot.Bytes})
	}
	stop := reportEvery(options.Progress, func() Progress {
		all := total.Load()
		return Progress{Files: r.files.Load(), Bytes: r.fetched.Load() + r.found.Load(), DuplicateBytes: r.found.Load(),
			TotalFiles: all.TotalFiles, TotalBytes: all.TotalBytes}
	})
	defer stop()
	if options.Progress != nil && total.Load().TotalFiles == 0 {
		var counting sync.WaitGroup
		counting.Go(func() {
			if all, err := r.count(node); err == nil { // else the restore meets it too
				total.Store(&all)
			}
		})
		defer counting.Wait()
	}
	r.base, r.ways = at[1:], waysTo(t.snapshot.Paths)
	if err := r.run(node, target); err != nil {
		cancel(err)
		return RestoreSummary{}, err
	}
	return RestoreSummary{Snapshot: t.snapshot, Files: r.files.Load(), Directories: r.dirs.Load(), Bytes: r.bytes.Load(),
		FetchedBytes: r.fetched.Load(), Actions: r.actions, Skipped: r.skipped.Load(), Lost: r.lost.Load(), Unowned: r.unowned.Load(),
		Verified: r.verified, VerifiedBytes: r.verifiedBytes, Duration: time.Since(began)}, nil
}

// waysTo returns the directories above the paths of a snapshot. They are in it
// so that the paths have a place, and nobody asked for them.
func waysTo(paths []string) map[string]bool {
	ways := map[string]bool{}
	for _, p := range paths {
		for p = path.Dir(path.Clean(filepath.ToSlash(p))); len(p) > 1 && !ways[p]; p = path.Dir(p) {
			ways[p] = true
		}
	}
	for _, p := range paths {
		delete(ways, path.Clean(filepath.ToSlash(p)))
	}
	return ways
}

// restore is one run: one goroutine walks the listings, makes directories,
// compares what is there and plans pieces; several write them.
type restore struct {
	reader  *vault.Reader
	ctx     context.Context
	cancel  context.CancelCauseFunc
	options RestoreOptions
	log     *slog.Logger
	include filter
	exclude filter
	base    string          // Path, clean and without the slash before it
	ways    map[string]bool // directories that only lead to what was backed up
	never   map[fileID]bool
	fold    bool // the target takes names that differ in case for the same
	top     *os.Root
	notes   *run
	pieces  chan piece
	links   map[linkKey]*linkGroup // the walk's
	buf     []byte                 // the walk's

	files, dirs, bytes, skipped, lost, unowned atomic.Uint64
	fetched, found                             atomic.Uint64 // bytes: from the vault, and in the target before
	verified, verifiedBytes                    uint64

	saying  sync.Mutex
	actions map[string]uint64
	left    map[string]bool // what a verification passes over
}

func (r *restore) run(node *vaultv1.Node, target string) error {
	top, made, err := r.openTarget(target)
	if err != nil {
		return err
	}
	r.top, r.notes = top, newRun(top)
	if top != nil {
		defer func() { _ = top.Close() }()
		if !r.options.DryRun {
			if removed, err := clearRuns(top); removed > 0 || err != nil {
				r.log.Info("removed what a restore that was killed had left", "entries", removed, "err", err)
			}
			r.notes.begin()
			defer r.notes.end()
		}
		r.fold = foldsNames(top, r.options.DryRun, r.notes)
	}
	r.never = neverIDs(r.options.Never)
	var wg sync.WaitGroup
	for range min(max(runtime.GOMAXPROCS(0), minWriters), maxWriters) {
		wg.Go(r.write)
	}
	r.plan(node, made, r.options.Path != "" && filepath.Clean(r.options.Path) == filepath.Clean(target))
	close(r.pieces)
	wg.Wait()
	if r.ctx.Err() == nil && r.options.Verify && !r.options.DryRun {
		r.verify(node)
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return nil
}

// foldsNames reports whether a directory takes names that differ in case for
// the same. It asks for what is there by another name, and writes only where
// there is nothing.
func foldsNames(dir *os.Root, dryRun bool, notes *run) bool {
	f, err := dir.Open(".")
	if err != nil {
		return foldNames
	}
	names, _ := f.Readdirnames(namesToTry) // none will do
	_ = f.Close()                          // only read
	for _, name := range names {
		other := otherCase(name)
		if other == name || slices.Contains(names, other) {
			continue
		}
		a, err := dir.Lstat(name)
		if err != nil {
			continue
		}
		b, err := dir.Lstat(other)
		return err == nil && os.SameFile(a, b)
	}
	if dryRun {
		return foldNames
	}
	notes.note("")
	name := notes.temporary()
	if f, err = dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return foldNames
	}
	_ = f.Close() // empty
	_, err = dir.Lstat(otherCase(name))
	_ = dir.Remove(name) // what stands in the way is met again
	return err == nil
}

// namesToTry bounds the names that foldsNames looks at.
const namesToTry = 64

// otherCase returns a name with the case of its ASCII letters changed.
func otherCase(name string) string {
	return strings.Map(func(c rune) rune {
		if 'a' <= c|0x20 && c|0x20 <= 'z' {
			return c ^ 0x20
		}
		return c
	}, name)
}

// openTarget opens the target, and makes it when it is missing. A dry run
// returns nil for one that is not there.
func (r *restore) openTarget(target string) (root *os.Root, made bool, err error) {
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
		if r.options.DryRun {
			return nil, true, nil
		}
		if err := os.MkdirAll(target, 0o700); err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrTarget, err)
		}
		made = true
	}
	root, err = os.OpenRoot(target)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	return root, made, nil
}

// skip reports an entry that could not be restored, or ends the restore when
// the reason will meet the others too.
func (r *restore) skip(path string, err error) {
	if r.ctx.Err() != nil {
		return
	}
	if stops(err) {
		r.cancel(fmt.Errorf("restore %s: %w", path, err))
		return
	}
	r.skipped.Add(1)
	if errors.Is(err, storage.ErrLost) {
		r.lost.Add(1)
	}
	r.log.Debug("not restored", "path", path, "err", err)
	if r.options.Skipped == nil {
		return
	}
	r.saying.Lock()
	defer r.saying.Unlock()
	r.options.Skipped(path, err)
}

// leaveOut is skip for an entry that is not there afterwards, or as it was: a
// verification does not name it again.
func (r *restore) leaveOut(path string, err error) {
	r.skip(path, err)
	if r.options.Verify {
		r.saying.Lock()
		defer r.saying.Unlock()
		r.left[path] = true
	}
}

func (r *restore) leftOut(path string) bool {
	r.saying.Lock()
	defer r.saying.Unlock()
	return r.left[path]
}

// did reports what was done to an entry, or would be.
func (r *restore) did(action, path string) {
	r.saying.Lock()
	defer r.saying.Unlock()
	r.actions[action]++
	if r.options.Done != nil {
		r.options.Done(action, path)
	}
}

func stops(err error) bool {
	return errors.Is(err, storage.ErrTooFewShards) && !errors.Is(err, storage.ErrLost) || disk.IsFull(err)
}
