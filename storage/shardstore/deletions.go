package shardstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// Bounds of deletions. In memory one takes 80 bytes, and 20 for each segment
// that it names; so an owner who fills all of it costs 24 MB.
const (
	maxOwnerDeletions     = 32 << 10  // of one owner
	maxOwnerDeletionBytes = 32 << 20  // on disk, of one owner
	maxDeletionStoreBytes = 512 << 20 // on disk, of all owners
	deletionAllowance     = 4 << 20   // of one owner, however small the quota
	deletionShare         = 8         // else up to this part of the quota, beside what is stored
)

// deletionStore keeps one append-only file for each vault, deleted/<owner>/<vault>.
type deletionStore struct {
	store  *Store
	mu     sync.RWMutex
	vaults map[vaultKey]*vaultDeletions
	named  namedList
	last   uint32 // number given to a vault
	bytes  int64  // of all files
}

func (k vaultKey) deletionPath() string {
	return deletionsDir + "/" + k.owner.String() + "/" + k.vault.String()
}

// vaultDeletions is one file.
type vaultDeletions struct {
	number uint32          // of the vault, in the list of named segments
	list   []deletionPlace // by number, those of one number as they came
	size   int64           // of the file
	known  uint64          // all numbers up to this were here, though they may be forgotten

	// settled is false of a file found at Open, until it was synced.
	settled bool
}

type deletionPlace struct {
	number   uint64
	id       [32]byte
	offset   int64 // of the record
	bytes    int   // of the raw deletion
	received time.Duration
}

func newDeletionStore(s *Store) *deletionStore {
	return &deletionStore{store: s, vaults: map[vaultKey]*vaultDeletions{}}
}

// scan reads all files.
func (d *deletionStore) scan() error {
	err := d.store.scanOwners(deletionsDir, func(key vaultKey) error {
		v, damaged, err := d.read(key)
		if err != nil {
			return err
		}
		if damaged > 0 {
			why := fmt.Sprintf("%d bytes of %s belong to no intact deletion", damaged, key.deletionPath())
			d.store.log.Warn("file of deletions is damaged", "owner", key.owner, "vault", key.vault, "why", why)
			d.store.problems.add(Problem{What: "file of deletions is damaged", Why: why, Owner: key.owner})
		}
		d.account(key, d.vaults[key], v)
		d.vaults[key] = v
		return nil
	})
	d.named = d.named.sorted()
	return err
}

// read reads one file and appends what it names to the list.
func (d *deletionStore) read(key vaultKey) (v *vaultDeletions, damaged int, err error) {
	data, err := d.store.readFile(key.deletionPath(), 2*maxOwnerDeletionBytes)
	if err != nil {
		return nil, 0, err
	}
	d.last++
	v = &vaultDeletions{number: d.last, size: int64(len(data))}
	damaged = parseRecords(data, func(r record, offset int64) {
		switch r.kind {
		case recordDeletion:
			parsed, err := storage.ParseKnownDeletion(r.raw)
			if err != nil || parsed.Owner != key.owner || parsed.Vault != key.vault {
				return
			}
			d.store.clock.note(r.received)
			if v.enter(parsed, offset, r.received) {
				for _, id := range parsed.Segments {
					d.named = append(d.named, nameOf(id, v.number))
				}
			}
		case recordKnown:
			v.known = max(v.known, parseKnown(r.raw))
		}
	})
	return v, damaged, nil
}

// enter adds a deletion in its place; false: it is there already.
func (v *vaultDeletions) enter(d storage.SignedDeletion, offset int64, received time.Duration) bool {
	if v.has(d) {
		return false
	}
	at, _ := slices.BinarySearchFunc(v.list, d.Number+1, func(p deletionPlace, number uint64) int { return cmp.Compare(p.number, number) })
	if d.Number+1 == 0 {
		at = len(v.list)
	}
	v.list = slices.Insert(v.list, at, deletionPlace{d.Number, d.ID, offset, len(d.Raw), received})
	return true
}

// under returns those under one number.
func (v *vaultDeletions) under(number uint64) []deletionPlace {
	compare := func(p deletionPlace, number uint64) int { return cmp.Compare(p.number, number) }
	from, found := slices.BinarySearchFunc(v.list, number, compare)
	if !found {
		return nil
	}
	to := from
	for to < len(v.list) && v.list[to].number == number {
		to++
	}
	return v.list[from:to]
}

func (v *vaultDeletions) has(d storage.SignedDeletion) bool {
	return slices.ContainsFunc(v.under(d.Number), func(p deletionPlace) bool { return p.id == d.ID })
}

// upTo returns the number up to which all are known.
func (v *vaultDeletions) upTo() uint64 {
	known := v.known
	for _, p := range v.list {
		switch {
		case p.number <= known:
		case p.number == known+1:
			known = p.number
		default:
			return known
		}
	}
	return known
}

// Deletions implements storage.DeletionStore. A record that turns out to be
// damaged is left out.
func (s *Store) Deletions(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, after uint64) ([][]byte, error) {
	if err := errors.Join(ctx.Err(), s.check()); err != nil {
		return nil, fmt.Errorf("deletions: %w", err)
	}
	d, key := s.deletions, vaultKey{owner, vault}
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.vaults[key]
	if v == nil {
		return nil, nil
	}
	f, err := s.fs.Open(key.deletionPath())
	if err != nil {
		return nil, fmt.Errorf("deletions: %w", err)
	}
	defer f.Close()
	var out [][]byte
	size, last := 0, uint64(0)
	for _, p := range v.list {
		if p.number <= after {
			continue
		}
		// A page ends between two numbers, with room for all of the next one, and
		// is never more than one PutDeletions takes.
		if p.number != last && (len(out) > storage.MaxPutDeletions-storage.MaxSameNumber ||
			size > storage.MaxDeletionPage-storage.MaxSameNumber*storage.MaxDeletionBytes) {
			break
		}
		if raw, ok := readRecord(f, p.offset, p.bytes); ok {
			out, size, last = append(out, raw), size+len(raw), p.number
		}
	}
	return out, nil
}

// deleted reports whether a deletion of its vault and owner names a segment.
func (d *deletionStore) deleted(owner grid.OwnerID, vault storage.VaultID, id storage.SegmentID) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.vaults[vaultKey{owner, vault}]
	return v != nil && d.named.has(id, v.number)
}

// names reports whether any deletion names a segment.
func (d *deletionStore) names(id storage.SegmentID) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.named.hasAny(id)
}

// deleted reports whether nothing of a segment is taken any more.
func (s *Store) deleted(header storage.SignedHeader) bool {
	return s.cat.inTrash(header.ID) || s.deletions.deleted(header.Owner, header.Vault, header.ID)
}

// Deleted reports whether a deletion that is kept here names a segment of that
// owner and vault.
func (s *Store) Deleted(owner grid.OwnerID, vault storage.VaultID, id storage.SegmentID) bool {
	return s.deletions.deleted(owner, vault, id)
}

// scanOwners calls each for every vault that has a file in dir, and removes
// unfinished files.
func (s *Store) scanOwners(dir string, each func(vaultKey) error) error {
	owners, err := s.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range owners {
		owner, err := grid.ParseOwnerID(entry.Name())
		if err != nil || !entry.IsDir() {
			s.log.Warn("foreign file", "file", dir+"/"+entry.Name())
			continue
		}
		path := dir + "/" + entry.Name()
		vaults, err := s.fs.ReadDir(path)
		if err != nil {
			return err
		}
		for _, file := range vaults {
			if strings.HasSuffix(file.Name(), tempSuffix) {
				if err := s.fs.Remove(path + "/" + file.Name()); err != nil {
					return err
				}
				continue
			}
			vault, err := storage.ParseVaultID(file.Name())
			if err != nil || !file.Type().IsRegular() {
				s.log.Warn("foreign file", "file", path+"/"+file.Name())
				continue
			}
			if err := each(vaultKey{owner, vault}); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareKeys orders vaults by owner, then by id.
func compareKeys(a, b vaultKey) int {
	return cmp.Or(bytes.Compare(a.owner[:], b.owner[:]), bytes.Compare(a.vault[:], b.vault[:]))
}
