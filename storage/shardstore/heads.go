package shardstore

import (
	"bytes"
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

// Bounds of the heads of one vault, and of what an owner's heads may take
// before they count in the owner's quota.
const (
	maxLinks          = 1024
	maxHeadFileBytes  = 16 << 20
	headAllowance     = 16 << 20
	maxHeadStoreBytes = 1 << 30 // heads of all owners together
)

// headStore keeps one append-only file for each vault, heads/<owner>/<vault>.
// In memory it has about 100 bytes for each head.
type headStore struct {
	store  *Store
	mu     sync.RWMutex
	vaults map[vaultKey]*vaultHeads
	bytes  int64 // of all files
}

type vaultKey struct {
	owner grid.OwnerID
	vault storage.VaultID
}

func (k vaultKey) path() string {
	return headsDir + "/" + k.owner.String() + "/" + k.vault.String()
}

// vaultHeads is one file: the chain with the place of each head in it.
type vaultHeads struct {
	chain storage.HeadChain[headPlace]
	size  int64 // of the file

	// settled is false of a file found at Open, until it was synced: a process
	// that was killed may have left heads in it that are not durable.
	settled bool
}

type headPlace struct {
	offset   int64 // of the record
	bytes    int   // of the raw head
	received time.Duration
	floor    time.Duration
}

func newHeadStore(s *Store) *headStore {
	return &headStore{store: s, vaults: map[vaultKey]*vaultHeads{}}
}

// scan reads all head files.
func (h *headStore) scan() error {
	owners, err := h.store.fs.ReadDir(headsDir)
	if err != nil {
		return err
	}
	for _, entry := range owners {
		owner, err := grid.ParseOwnerID(entry.Name())
		if err != nil || !entry.IsDir() {
			h.store.log.Warn("foreign file among the heads", "file", entry.Name())
			continue
		}
		if err := h.scanOwner(owner); err != nil {
			return err
		}
	}
	return nil
}

func (h *headStore) scanOwner(owner grid.OwnerID) error {
	dir := headsDir + "/" + owner.String()
	entries, err := h.store.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), tempSuffix) {
			if err := h.store.fs.Remove(dir + "/" + entry.Name()); err != nil {
				return err
			}
			continue
		}
		vault, err := storage.ParseVaultID(entry.Name())
		if err != nil || !entry.Type().IsRegular() {
			h.store.log.Warn("foreign file among the heads", "file", dir+"/"+entry.Name())
			continue
		}
		if err := h.scanVault(vaultKey{owner, vault}); err != nil {
			return err
		}
	}
	return nil
}

func (h *headStore) scanVault(key vaultKey) error {
	data, err := h.store.readFile(key.path(), 2*maxHeadFileBytes)
	if err != nil {
		return err
	}
	v := &vaultHeads{size: int64(len(data))}
	foreign := 0
	damaged := parseRecords(data, func(r headRecord, offset int64) {
		if !v.replay(key, r, offset) {
			foreign++
		}
	})
	if damaged > 0 || foreign > 0 {
		// A torn tail was never acknowledged; anything else was, but others
		// have it too. Either way the rest of the chain stands.
		why := fmt.Sprintf("%d bytes of %s belong to no intact head, %d heads do not belong there", damaged, key.path(), foreign)
		h.store.log.Warn("head file is damaged", "owner", key.owner, "vault", key.vault, "why", why)
		h.store.problems.add(Problem{What: "head file is damaged", Why: why, Owner: key.owner})
	}
	h.account(key, nil, v)
	h.vaults[key] = v
	return nil
}

// replay enters one record; false: it does not belong to this file.
func (v *vaultHeads) replay(key vaultKey, r headRecord, offset int64) bool {
	head, err := storage.ParseKnownHead(r.raw)
	if err != nil || head.Owner != key.owner || head.Vault != key.vault {
		return false
	}
	link := storage.LinkOf(head, headPlace{offset: offset, bytes: len(r.raw), received: r.received, floor: head.Floor})
	if r.kind == recordFork {
		v.chain.AddFork(link)
		return true
	}
	if verdict, _ := v.chain.Judge(link); verdict == storage.HeadPlaced {
		v.chain.Place(link)
	}
	return true
}

// PutHeads implements storage.HeadStore.
func (s *Store) PutHeads(ctx context.Context, raw [][]byte) error {
	if err := s.putHeads(ctx, raw); err != nil {
		return fmt.Errorf("put heads: %w", err)
	}
	s.clock.tick()
	return nil
}

func (s *Store) putHeads(ctx context.Context, raw [][]byte) error {
	heads, err := storage.CheckLinks(raw)
	if err != nil {
		return err
	}
	if s.cfg.AuthorizeHead != nil {
		for _, head := range heads {
			if err := s.cfg.AuthorizeHead(head); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(ctx.Err(), s.checkWrite()); err != nil {
		return err
	}
	return s.heads.put(vaultKey{heads[0].Owner, heads[0].Vault}, heads)
}

// put judges heads of one vault, writes what is new, and only then knows it.
func (h *headStore) put(key vaultKey, heads []storage.SignedHead) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.vaults[key]
	if old == nil && len(h.of(key.owner)) >= storage.MaxOwnerVaults {
		return fmt.Errorf("%d vaults of one owner: %w", storage.MaxOwnerVaults, storage.ErrQuota)
	}
	now := h.store.clock.now()
	next, records, verdict := old.extend(heads, now)
	if next.tooLarge() {
		var err error
		if old, err = h.compact(key, old, now); err != nil {
			return err
		}
		if next, records, verdict = old.extend(heads, now); next.tooLarge() {
			return fmt.Errorf("%d heads of one vault, all within their floor: %w", next.chain.Len(), storage.ErrQuota)
		}
	}
	if len(records) == 0 && old != nil && old.settled {
		return verdict
	}
	if err := h.checkRoom(key, int64(len(records))); err != nil {
		return err
	}
	if err := h.append(key, old, records); err != nil {
		return err
	}
	h.account(key, old, next)
	h.vaults[key] = next
	return verdict
}

// extend returns what v becomes with heads, and the records to write. It stops
// at the first head that is refused and returns why.
func (v *vaultHeads) extend(heads []storage.SignedHead, now time.Duration) (next *vaultHeads, records []byte, err error) {
	next = &vaultHeads{settled: true}
	if v != nil {
		next.size, next.chain = v.size, v.chain.Clone()
	}
	for _, head := range heads {
		place := headPlace{offset: next.size, bytes: len(head.Raw), received: now, floor: head.Floor}
		link := storage.LinkOf(head, place)
		verdict, err := next.chain.Judge(link)
		record := headRecord{kind: recordLink, received: now, raw: head.Raw}
		switch {
		case verdict == storage.HeadPlaced:
			next.chain.Place(link)
		case verdict == storage.HeadFork && len(next.chain.Forks()) < storage.MaxHeadForks:
			next.chain.AddFork(link)
			record.kind = recordFork
		default:
			if err != nil {
				return next, records, err
			}
			continue
		}
		records = appendRecord(records, record)
		next.size += recordSize(len(head.Raw))
		if err != nil {
			return next, records, err
		}
	}
	return next, records, nil
}

func (v *vaultHeads) tooLarge() bool {
	return v.chain.Len() > maxLinks || v.size > maxHeadFileBytes
}

// checkRoom keeps heads within the owner's quota, beyond a small allowance, and
// within a bound for all.
func (h *headStore) checkRoom(key vaultKey, size int64) error {
	c := h.store.cat
	limit := int64(-1)
	if c.ownerLimit != nil {
		limit = max(0, c.ownerLimit(key.owner))
	}
	c.mu.Lock()
	account := *c.usageOf(key.owner)
	c.mu.Unlock()
	switch {
	case limit >= 0 && account.heads+size > headAllowance && account.bytes+account.reserved+account.heads+size > limit:
		return fmt.Errorf("heads of owner %s take %d bytes: %w", key.owner.Short(), account.heads, storage.ErrQuota)
	case h.bytes+size > maxHeadStoreBytes || size > h.store.diskFree():
		return fmt.Errorf("no room for heads: %w", storage.ErrFull)
	}
	return nil
}

// append writes records at the end of the file and makes the file durable.
func (h *headStore) append(key vaultKey, old *vaultHeads, records []byte) error {
	s, dir := h.store, headsDir+"/"+key.owner.String()
	if err := s.makeDir(headsDir, key.owner.String()); err != nil {
		return err
	}
	f, err := s.fs.OpenRW(key.path())
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.fs.Create(key.path())
	}
	if err != nil {
		return ioFailed(err)
	}
	var offset int64
	if old != nil {
		offset = old.size
	}
	if _, err := f.WriteAt(records, offset); err != nil {
		return errors.Join(ioFailed(err), f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return s.syncFailed(err)
	}
	if old != nil && old.settled {
		return nil
	}
	// The file is new, or nobody knows whether its name is durable.
	if err := s.fs.SyncDir(dir); err != nil {
		return s.syncFailed(err)
	}
	return nil
}

// of returns the vaults of an owner in order; h.mu is held.
func (h *headStore) of(owner grid.OwnerID) []vaultKey {
	var keys []vaultKey
	for key := range h.vaults {
		if key.owner == owner {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b vaultKey) int { return bytes.Compare(a.vault[:], b.vault[:]) })
	return keys
}

// account enters that a file changed its size.
func (h *headStore) account(key vaultKey, old, next *vaultHeads) {
	grown := next.size
	if old != nil {
		grown -= old.size
	}
	h.bytes += grown
	c := h.store.cat
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usageOf(key.owner).heads += grown
	c.used += grown
}

// Heads implements storage.HeadStore. A record that turns out to be damaged is
// left out.
func (s *Store) Heads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	if err := errors.Join(ctx.Err(), s.check()); err != nil {
		return nil, fmt.Errorf("heads: %w", err)
	}
	h := s.heads
	h.mu.RLock()
	defer h.mu.RUnlock()
	var out []storage.VaultHeads
	for _, key := range h.of(owner) {
		v, err := h.read(key)
		if err != nil {
			return nil, fmt.Errorf("heads: %w", err)
		}
		out = append(out, v)
	}
	return out, nil
}

func (h *headStore) read(key vaultKey) (storage.VaultHeads, error) {
	v, out := h.vaults[key], storage.VaultHeads{Vault: key.vault}
	f, err := h.store.fs.Open(key.path())
	if err != nil {
		return out, err
	}
	defer f.Close()
	for _, link := range v.chain.Newest(func(p headPlace) int { return p.bytes }) {
		if raw, ok := readRecord(f, link.Body); ok {
			out.Links = append(out.Links, raw)
		}
	}
	for _, link := range v.chain.Forks() {
		if raw, ok := readRecord(f, link.Body); ok && len(out.Forks) < storage.MaxHeadForks {
			out.Forks = append(out.Forks, raw)
		}
	}
	return out, nil
}

func readRecord(f File, place headPlace) ([]byte, bool) {
	b := make([]byte, recordSize(place.bytes))
	if n, _ := f.ReadAt(b, place.offset); n < len(b) {
		return nil, false
	}
	r, _, ok := parseRecord(b)
	return r.raw, ok
}
