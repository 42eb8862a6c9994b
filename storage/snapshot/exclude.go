package snapshot

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	vaultv1 "gotong/proto/vault/v1"
)

// A directory with a file of this name, that begins so, is a cache:
// https://bford.info/cachedir/
const (
	cacheTag       = "CACHEDIR.TAG"
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

// tagged returns the names of a directory that are backed up, when a tag in it
// says that the rest is not, and how many are left out.
func (b *backup) tagged(dir *openDir, names []string) (kept []string, left int) {
	for _, tag := range b.options.ExcludeIfPresent {
		if _, found := slices.BinarySearch(names, tag); found {
			return []string{tag}, len(names) - 1
		}
	}
	if !b.options.ExcludeCaches {
		return names, 0
	}
	if _, found := slices.BinarySearch(names, cacheTag); !found {
		return names, 0
	}
	begin, err := readSmall(dir, cacheTag, int64(len(cacheSignature)))
	if err != nil || string(begin) != cacheSignature {
		return names, 0
	}
	return []string{cacheTag}, len(names) - 1
}

// readSmall returns the beginning of a regular file.
func readSmall(dir *openDir, name string, limit int64) ([]byte, error) {
	f, err := dir.source.openFile(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.close() }() // only read
	m, err := f.stat()
	if err != nil {
		return nil, err
	}
	if m.kind != vaultv1.Node_FILE {
		return nil, errNotRegular
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// readScope adds the ignore files of a directory to those above. One that
// cannot be used leaves nothing out.
func (b *backup) readScope(at place, names []string) *scope {
	for _, name := range b.options.IgnoreFiles {
		if _, found := slices.BinarySearch(names, name); !found {
			continue
		}
		text, err := readSmall(at.dir, name, maxIgnoreFileBytes+1)
		var lines rules
		if err == nil {
			lines, err = parseRuleFile(text, foldNames)
		}
		switch {
		case err == nil:
			at.scope = &scope{above: at.scope, base: len(at.rel), rules: lines}
		case !absent(err) && !errors.Is(err, errNotRegular) && !b.counting:
			b.warn(at.dir.join(name), err)
		}
	}
	return at.scope
}

// scanAfter is when a backup that still runs is worth a second walk that finds
// out how much there is.
const scanAfter = time.Second

// scan counts what there is to back up.
func (b *backup) scan(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(scanAfter):
	}
	options := b.options
	options.Skipped, options.Warned, options.Progress = nil, nil, nil
	counter := &backup{v: b.v, ctx: ctx, options: options, log: b.log, roots: b.roots, lines: b.lines,
		devices: map[uint64]uint32{}, neverIDs: b.neverIDs, counting: true}
	counter.walkRoots()
	if ctx.Err() == nil {
		b.totalBytes.Store(counter.bytes.Load())
		b.totalFiles.Store(counter.files.Load())
	}
}
