package shardstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// PutDeletions implements storage.DeletionStore.
func (s *Store) PutDeletions(ctx context.Context, raw [][]byte) error {
	if err := s.putDeletions(ctx, raw); err != nil {
		return fmt.Errorf("put deletions: %w", err)
	}
	s.clock.tick()
	return nil
}

func (s *Store) putDeletions(ctx context.Context, raw [][]byte) error {
	deletions, err := storage.ParseDeletions(raw)
	if err != nil {
		return err
	}
	if s.cfg.AuthorizeDeletion != nil {
		for _, d := range deletions {
			if err := s.cfg.AuthorizeDeletion(d); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(ctx.Err(), s.checkWrite()); err != nil {
		return err
	}
	for len(deletions) > 0 {
		key := vaultKey{deletions[0].Owner, deletions[0].Vault}
		n := slices.IndexFunc(deletions, func(d storage.SignedDeletion) bool { return (vaultKey{d.Owner, d.Vault}) != key })
		if n < 0 {
			n = len(deletions)
		}
		if err := s.deletions.put(key, deletions[:n]); err != nil {
			return err
		}
		// A shard goes to the trash only for what is durable. That the move is
		// durable is not waited for: whoever opens the store after a power cut
		// finds the shard in one of the two places and moves it again.
		if err := s.trashNamed(deletions[:n]); err != nil {
			return err
		}
		deletions = deletions[n:]
	}
	return nil
}

// trashNamed moves to the trash what durable deletions name.
func (s *Store) trashNamed(deletions []storage.SignedDeletion) error {
	for _, d := range deletions {
		for _, id := range d.Segments {
			like, stored, _ := s.cat.of(id)
			if like.owner == nil || like.owner.owner != d.Owner || like.vault.Value() != d.Vault {
				continue
			}
			for _, shard := range stored {
				if err := s.trashOne(storage.ShardID{Segment: id, Index: shard.index}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// put writes what is new of one vault, durably, and only then knows it.
func (d *deletionStore) put(key vaultKey, deletions []storage.SignedDeletion) error {
	epoch := d.store.heads.epoch(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.store.clock.stamp()
	old := d.vaults[key]
	next, records, fresh, err := d.extend(old, deletions, epoch, now)
	if err != nil {
		return err
	}
	if len(fresh) == 0 && old != nil && old.settled {
		return nil
	}
	if err := d.checkRoom(key, old, len(fresh), int64(len(records))); err != nil {
		return err
	}
	if err := d.store.appendRecords(deletionsDir, key.owner, key.deletionPath(), next.size-int64(len(records)), records, old == nil || !old.settled); err != nil {
		return err
	}
	d.account(key, old, next)
	d.vaults[key] = next
	for _, f := range fresh {
		d.named = d.named.merge(f.Segments, next.number)
	}
	return nil
}

// extend returns what v becomes with more deletions, the records to write, and
// which are new.
func (d *deletionStore) extend(v *vaultDeletions, deletions []storage.SignedDeletion, epoch uint32, now time.Duration) (next *vaultDeletions, records []byte, fresh []storage.SignedDeletion, err error) {
	next = &vaultDeletions{settled: true}
	if v != nil {
		next.number, next.list, next.size, next.known = v.number, slices.Clone(v.list), v.size, v.known
	} else {
		d.last++
		next.number = d.last
	}
	for _, deletion := range deletions {
		if next.has(deletion) {
			continue
		}
		if deletion.Delegation.Epoch < epoch {
			return nil, nil, nil, fmt.Errorf("deletion of epoch %d, known %d: %w", deletion.Delegation.Epoch, epoch, storage.ErrStaleEpoch)
		}
		if n := len(next.under(deletion.Number)); n >= storage.MaxSameNumber {
			return nil, nil, nil, fmt.Errorf("%d deletions of vault %s under number %d already: %w", n, deletion.Vault.Short(), deletion.Number, storage.ErrQuota)
		}
		next.enter(deletion, next.size, now)
		records = appendRecord(records, record{kind: recordDeletion, received: now, raw: deletion.Raw})
		next.size += recordSize(len(deletion.Raw))
		fresh = append(fresh, deletion)
	}
	return next, records, fresh, nil
}

// checkRoom keeps the deletions of an owner within their bounds. They do not
// compete with what is stored for the quota: an owner who is at the quota has to
// delete.
func (d *deletionStore) checkRoom(key vaultKey, old *vaultDeletions, more int, size int64) error {
	c := d.store.cat
	limit := int64(-1)
	if c.ownerLimit != nil {
		limit = max(0, c.ownerLimit(key.owner))
	}
	c.mu.Lock()
	account := *c.usageOf(key.owner)
	c.mu.Unlock()
	vaults, count := 0, more
	for other, v := range d.vaults {
		if other.owner == key.owner {
			vaults, count = vaults+1, count+len(v.list)
		}
	}
	switch {
	case old == nil && vaults >= storage.MaxOwnerVaults:
		return fmt.Errorf("owner %s has deletions in %d vaults: %w", key.owner.Short(), vaults, storage.ErrQuota)
	case count > maxOwnerDeletions || account.deletions+size > maxOwnerDeletionBytes:
		return fmt.Errorf("owner %s has %d deletions of %d bytes that are not to be forgotten yet, at most %d and %d: %w",
			key.owner.Short(), count-more, account.deletions, maxOwnerDeletions, maxOwnerDeletionBytes, storage.ErrQuota)
	case limit >= 0 && account.deletions+size > max(deletionAllowance, limit/deletionShare):
		return fmt.Errorf("deletions of owner %s take %d bytes: %w", key.owner.Short(), account.deletions, storage.ErrQuota)
	case d.bytes+size > maxDeletionStoreBytes || size > d.store.diskFree():
		return fmt.Errorf("no room for deletions: %w", storage.ErrFull)
	}
	return nil
}

// account enters that a file changed its size.
func (d *deletionStore) account(key vaultKey, old, next *vaultDeletions) {
	var grown int64
	if next != nil {
		grown += next.size
	}
	if old != nil {
		grown -= old.size
	}
	d.bytes += grown
	c := d.store.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usageOf(key.owner).deletions += grown
	c.used += grown
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

// expire forgets deletions that are older than what is to be remembered, in those files of which
// they make up a good part.
func (d *deletionStore) expire(now time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := false
	for key, v := range d.vaults {
		var old int64
		for _, p := range v.list {
			if p.received+d.store.cfg.KeepDeletions <= now {
				old += recordSize(p.bytes)
			}
		}
		if old == 0 || old < v.size/8 {
			continue
		}
		if err := d.rewrite(key, v, now); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return d.nameAnew()
}

// rewrite replaces a file by one without the deletions that are too old. It
// remembers up to which number all were known.
func (d *deletionStore) rewrite(key vaultKey, v *vaultDeletions, now time.Duration) error {
	f, err := d.store.fs.Open(key.deletionPath())
	if err != nil {
		return err
	}
	defer f.Close()
	next := &vaultDeletions{number: v.number, settled: true, known: v.upTo()}
	data := appendRecord(nil, record{kind: recordKnown, received: now, raw: encodeKnown(next.known)})
	for _, p := range v.list {
		if p.received+d.store.cfg.KeepDeletions <= now {
			continue
		}
		raw, ok := readRecord(f, p.offset, p.bytes)
		if !ok {
			continue // damaged since it was written; others have it
		}
		p.offset = int64(len(data))
		data = appendRecord(data, record{kind: recordDeletion, received: p.received, raw: raw})
		next.list = append(next.list, p)
	}
	next.size = int64(len(data))
	if err := d.store.replaceRecords(deletionsDir+"/"+key.owner.String(), key.deletionPath(), data); err != nil {
		return err
	}
	d.account(key, v, next)
	d.vaults[key] = next
	return nil
}

// nameAnew makes the list of named segments from the files.
func (d *deletionStore) nameAnew() error {
	var all namedList
	for key, v := range d.vaults {
		f, err := d.store.fs.Open(key.deletionPath())
		if err != nil {
			return err
		}
		for _, p := range v.list {
			raw, _ := readRecord(f, p.offset, p.bytes)
			parsed, err := storage.ParseKnownDeletion(raw)
			if err != nil {
				continue
			}
			for _, id := range parsed.Segments {
				all = append(all, nameOf(id, v.number))
			}
		}
		_ = f.Close() // only read
	}
	d.named = all.sorted()
	return nil
}

// forget removes all of an owner.
func (d *deletionStore) forget(owner grid.OwnerID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, v := range d.vaults {
		if key.owner != owner {
			continue
		}
		if err := d.store.fs.Remove(key.deletionPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ioFailed(err)
		}
		d.account(key, v, nil)
		delete(d.vaults, key)
		d.named = slices.DeleteFunc(d.named, func(n named) bool { return n.vault == v.number })
	}
	return nil
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
