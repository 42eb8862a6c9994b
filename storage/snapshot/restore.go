package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
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
	// Progress, when set, is called a few times a second, and once in the end.
	Progress func(Progress)
	// Skipped, when set, is called for each entry that could not be restored.
	// The restore goes on without it. Calls do not overlap.
	Skipped func(path string, err error)
	Logger  *slog.Logger // nil discards
}

// RestoreSummary says what a restore did.
type RestoreSummary struct {
	Snapshot    vault.Snapshot
	Files       uint64 // regular files
	Directories uint64
	Bytes       uint64 // of the files
	Skipped     uint64
	Duration    time.Duration
}

// Restore writes a snapshot (an id, the beginning of one, or vault.Latest) into
// the directory target, which is made when it is missing. What is there already
// is replaced where it has the same name, else left alone.
//
// Entries that cannot be restored are skipped and counted. When data cannot be
// had because too few shards answer, or the disk is full, the restore stops:
// the error is storage.ErrTooFewShards or that of the disk, and what was
// finished until then stays.
func Restore(ctx context.Context, v *vault.Vault, name, target string, options RestoreOptions) (RestoreSummary, error) {
	began := time.Now()
	snapshot, err := v.Find(ctx, name)
	if err != nil {
		return RestoreSummary{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reader, err := v.NewReader(ctx)
	if err != nil {
		return RestoreSummary{}, err
	}
	defer reader.Close()
	r := &restore{reader: reader, ctx: ctx, cancel: cancel, options: options, log: options.Logger,
		pieces: make(chan piece, aheadPieces), links: map[linkKey]*linkGroup{}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	stop := reportEvery(options.Progress, func() Progress {
		return Progress{Files: r.files.Load(), Bytes: r.written.Load(), TotalFiles: snapshot.Files, TotalBytes: snapshot.Bytes}
	})
	defer stop()
	if err := r.run(snapshot.Root, target); err != nil {
		return RestoreSummary{}, err
	}
	return RestoreSummary{Snapshot: snapshot, Files: r.files.Load(), Directories: r.dirs.Load(), Bytes: r.bytes.Load(),
		Skipped: r.skipped.Load(), Duration: time.Since(began)}, nil
}

// restore is one run: one goroutine walks the listings, makes directories and
// plans pieces; several write them.
type restore struct {
	reader  *vault.Reader
	ctx     context.Context
	cancel  context.CancelCauseFunc
	options RestoreOptions
	log     *slog.Logger
	top     *os.Root
	pieces  chan piece
	links   map[linkKey]*linkGroup // the walk's

	files, dirs, bytes, written, skipped atomic.Uint64
	skipping                             sync.Mutex
}

func (r *restore) run(root vault.Ref, target string) error {
	node, err := r.locate(root)
	if err != nil {
		return err
	}
	top, made, err := openTarget(target)
	if err != nil {
		return err
	}
	defer func() { _ = top.Close() }()
	r.top = top
	var wg sync.WaitGroup
	for range min(max(runtime.GOMAXPROCS(0), minWriters), maxWriters) {
		wg.Go(r.write)
	}
	r.plan(node, made)
	close(r.pieces)
	wg.Wait()
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return nil
}

// openTarget opens the target, and makes it when it is missing.
func openTarget(target string) (root *os.Root, made bool, err error) {
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
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

// locate returns the node that the options ask for; one without a name stands
// for the whole snapshot.
func (r *restore) locate(root vault.Ref) (*vaultv1.Node, error) {
	return Lookup(r.reader, root, r.options.Path)
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
	r.log.Debug("not restored", "path", path, "err", err)
	if r.options.Skipped == nil {
		return
	}
	r.skipping.Lock()
	defer r.skipping.Unlock()
	r.options.Skipped(path, err)
}

func stops(err error) bool {
	return errors.Is(err, storage.ErrTooFewShards) || disk.IsFull(err)
}
