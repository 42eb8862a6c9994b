package vault

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
)

// Latest names the newest snapshot wherever an id is asked for.
const Latest = "latest"

const snapshotVersion = 1

// minPastPrefix keeps a mistyped name from asking all peers for old heads.
const minPastPrefix = 8

// Bounds of a snapshot's description.
const (
	MaxSnapshotPaths = 4096
	MaxSnapshotTags  = 256
	MaxTagBytes      = 256 // of a tag, and of the name of a set
)

// Snapshot describes one snapshot.
type Snapshot struct {
	ID          SnapshotID // given by Commit
	Created     time.Time
	Host        string
	Paths       []string // absolute; any bytes
	Root        Ref      // listing of "/"
	Files       uint64
	Directories uint64
	Bytes       uint64
	Skipped     uint64 // entries that could not be read
	Tags        []string
	Set         string // name of the backup set that it belongs to; may be empty
}

// String returns 64 hex digits.
func (id SnapshotID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 12 hex digits, for people.
func (id SnapshotID) Short() string { return id.String()[:12] }

// MarshalText implements encoding.TextMarshaler.
func (id SnapshotID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func (s Snapshot) encode() ([]byte, error) {
	p := &vaultv1.Snapshot{
		Version: snapshotVersion, Created: s.Created.UnixNano(), Host: strings.ToValidUTF8(s.Host, "\uFFFD"), Root: s.Root.Proto(),
		Files: s.Files, Directories: s.Directories, Bytes: s.Bytes, Skipped: s.Skipped, Tags: s.Tags, Set: s.Set,
	}
	if len(s.Paths) > MaxSnapshotPaths || len(s.Tags) > MaxSnapshotTags {
		return nil, fmt.Errorf("snapshot of %d paths and %d tags, at most %d and %d", len(s.Paths), len(s.Tags), MaxSnapshotPaths, MaxSnapshotTags)
	}
	for _, tag := range append([]string{s.Set}, s.Tags...) {
		if len(tag) > MaxTagBytes || !utf8.ValidString(tag) {
			return nil, fmt.Errorf("tag or set %q: want at most %d bytes of UTF-8", tag, MaxTagBytes)
		}
	}
	for _, path := range s.Paths {
		p.Paths = append(p.Paths, []byte(path))
	}
	return proto.Marshal(p)
}

func parseSnapshot(b []byte) (Snapshot, error) {
	var p vaultv1.Snapshot
	if err := proto.Unmarshal(b, &p); err != nil {
		return Snapshot{}, fmt.Errorf("%w: snapshot: %w", storage.ErrCorrupt, err)
	}
	if p.Version != snapshotVersion {
		return Snapshot{}, fmt.Errorf("%w: snapshot version %d is not known", storage.ErrCorrupt, p.Version)
	}
	root, err := RefOf(p.Root)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot: %w", err)
	}
	s := Snapshot{Created: time.Unix(0, p.Created), Host: p.Host, Root: root, Files: p.Files,
		Directories: p.Directories, Bytes: p.Bytes, Skipped: p.Skipped, Tags: p.Tags, Set: p.Set}
	for _, path := range p.Paths {
		s.Paths = append(s.Paths, string(path))
	}
	return s, nil
}

// Snapshots returns all snapshots, oldest first, but for those that nobody can
// open. Without the read key the error
// is seal.ErrNoReadKey.
func (v *Vault) Snapshots(ctx context.Context) ([]Snapshot, error) {
	if err := v.sync(ctx); err != nil {
		return nil, err
	}
	entries, err := v.index.entries()
	if errors.Is(err, errIndexBroken) {
		if err = v.sync(ctx); err == nil {
			entries, err = v.index.entries()
		}
	}
	if err != nil {
		return nil, err
	}
	all := make([]Snapshot, 0, len(entries))
	for _, e := range entries {
		s, err := v.openSnapshot(ctx, e.record)
		switch {
		case err == nil:
			all = append(all, s)
		case !v.readSecrets(ctx).CanRead():
			return nil, err
		default: // whoever had the device may have written it; the others stand
			v.log.Warn("a snapshot cannot be opened", "id", e.id.Short(), "err", err)
		}
	}
	return all, nil
}

func (v *Vault) openSnapshot(ctx context.Context, record []byte) (Snapshot, error) {
	plain, err := v.readSecrets(ctx).OpenRecord(record)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot: %w", err)
	}
	s, err := parseSnapshot(plain)
	s.ID = snapshotIDOf(record)
	return s, err
}

// Find returns the snapshot that name means: Latest, an id, or the beginning of
// exactly one id. A forgotten snapshot is found as long as holders have it, by
// at least minPastPrefix digits. Errors: ErrNoSnapshot, ErrAmbiguous, those of Snapshots.
func (v *Vault) Find(ctx context.Context, name string) (Snapshot, error) {
	all, err := v.Snapshots(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	if name == Latest && len(all) > 0 {
		return all[len(all)-1], nil
	}
	var found []Snapshot
	for _, s := range all {
		if name != "" && strings.HasPrefix(s.ID.String(), name) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		if name == Latest || len(name) < minPastPrefix {
			return Snapshot{}, fmt.Errorf("%w: %q", ErrNoSnapshot, name)
		}
		return v.findPast(ctx, name)
	case 1:
		return found[0], nil
	}
	return Snapshot{}, fmt.Errorf("%w: %q", ErrAmbiguous, name)
}

// entry is a snapshot as the index has it.
type entry struct {
	id       SnapshotID
	record   []byte
	segments numberSet
}

func (e *entry) proto() *vaultv1.SnapshotEntry {
	return &vaultv1.SnapshotEntry{Record: e.record, Segments: e.segments.encode()}
}

// eachEntry calls fn with each snapshot, oldest first, and its key in the index.
func eachEntry(tx *bbolt.Tx, fn func(key []byte, e *entry) error) error {
	return tx.Bucket(bucketSnapshots).ForEach(func(key, b []byte) error {
		var p vaultv1.SnapshotEntry
		if err := proto.Unmarshal(b, &p); err != nil || len(p.Record) == 0 {
			return fmt.Errorf("%w: snapshot", errIndexBroken)
		}
		segments, err := decodeNumbers(p.Segments, maxSegments)
		if err != nil {
			return fmt.Errorf("%w: snapshot: %w", errIndexBroken, err)
		}
		return fn(key, &entry{snapshotIDOf(p.Record), p.Record, segments})
	})
}

// entries returns all snapshots, oldest first.
func (x *index) entries() (all []entry, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		return eachEntry(tx, func(_ []byte, e *entry) error {
			all = append(all, *e)
			return nil
		})
	})
	return all, err
}

// replaceSnapshots makes the bucket hold the snapshots of the catalogue.
func replaceSnapshots(tx *bbolt.Tx, part *vaultv1.CataloguePart) error {
	if err := tx.DeleteBucket(bucketSnapshots); err != nil {
		return err
	}
	if _, err := tx.CreateBucket(bucketSnapshots); err != nil {
		return err
	}
	for _, e := range part.Snapshots {
		if err := addSnapshot(tx, e); err != nil {
			return err
		}
	}
	return nil
}

// forgetEntry takes a snapshot out of the index. What only it needed is known
// to have been needed once.
func forgetEntry(tx *bbolt.Tx, id SnapshotID) error {
	return changeEntry(tx, id, func(key []byte, e *entry) error {
		for number := range e.segments.all() {
			if err := flagSegment(tx, number, rowOnce, 0); err != nil {
				return err
			}
		}
		if err := countUnpruned(tx); err != nil {
			return err
		}
		return tx.Bucket(bucketSnapshots).Delete(key)
	})
}

// replaceEntry makes a snapshot need other segments.
func replaceEntry(tx *bbolt.Tx, id SnapshotID, segments *numberSet) error {
	return changeEntry(tx, id, func(key []byte, e *entry) error {
		e.segments = *segments
		b, err := proto.Marshal(e.proto())
		if err != nil {
			return err
		}
		return tx.Bucket(bucketSnapshots).Put(key, b)
	})
}

// changeEntry calls fn with a snapshot and its key; one that is not there needs
// no change.
func changeEntry(tx *bbolt.Tx, id SnapshotID, fn func(key []byte, e *entry) error) error {
	var key []byte
	var found *entry
	err := eachEntry(tx, func(k []byte, e *entry) error {
		if e.id == id {
			key, found = bytes.Clone(k), e
		}
		return nil
	})
	if err != nil || found == nil {
		return err
	}
	found.record = bytes.Clone(found.record)
	return fn(key, found)
}

func addSnapshot(tx *bbolt.Tx, e *vaultv1.SnapshotEntry) error {
	snapshots := tx.Bucket(bucketSnapshots)
	order, err := snapshots.NextSequence()
	if err != nil {
		return err
	}
	b, err := proto.Marshal(e)
	if err != nil {
		return err
	}
	return snapshots.Put(be32(uint32(order)), b)
}
