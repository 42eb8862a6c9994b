package shardstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// Bounds of the heads of one vault, and of what an owner's heads may take
// before they count in the owner's quota. Nothing within its floor is dropped for
// a newer head: when the room is used up, that one is refused. So that a device
// in the wrong hands cannot keep its owner out, each epoch has room of its own,
// and only the owner key begins one.
const (
	maxEpochLinks     = 1024
	maxEpochBytes     = 16 << 20
	maxLinks          = 4 * maxEpochLinks
	maxHeadFileBytes  = 4 * maxEpochBytes
	headAllowance     = 16 << 20
	recoveryBytes     = 1 << 20 // of a newer epoch, beyond the allowance
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
func (h *headStore) scan() error { return h.store.scanOwners(headsDir, h.scanVault) }

func (h *headStore) scanVault(key vaultKey) error {
	data, err := h.store.readFile(key.path(), 2*maxHeadFileBytes)
	if err != nil {
		return err
	}
	v := &vaultHeads{size: int64(len(data))}
	foreign := 0
	damaged := parseRecords(data, func(r record, offset int64) {
		h.store.clock.note(r.received)
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
func (v *vaultHeads) replay(key vaultKey, r record, offset int64) bool {
	if r.kind != recordLink && r.kind != recordFork {
		return false
	}
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
		if err := s.cfg.AuthorizeHead(heads[len(heads)-1]); err != nil {
			return err
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
	if err := h.checkRoom(key, next, int64(len(records))); err != nil {
		return err
	}
	if err := h.store.appendRecords(headsDir, key.owner, key.path(), next.size-int64(len(records)), records, old == nil || !old.settled); err != nil {
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
		record := record{kind: recordLink, received: now, raw: head.Raw}
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
	if v.chain.Len() > maxLinks || v.size > maxHeadFileBytes {
		return true
	}
	links, bytes := map[uint32]int{}, map[uint32]int64{}
	for _, l := range slices.Concat(v.chain.Links(), v.chain.Forks()) {
		links[l.Epoch]++
		bytes[l.Epoch] += recordSize(l.Body.bytes)
		if links[l.Epoch] > maxEpochLinks || bytes[l.Epoch] > maxEpochBytes {
			return true
		}
	}
	return false
}

// recovers reports whether the newest heads are of a later epoch than others and
// still few: those with which an owner takes a vault back.
func (v *vaultHeads) recovers() bool {
	links := v.chain.Links()
	newest, others := links[len(links)-1].Epoch, false
	var size int64
	for _, l := range slices.Concat(links, v.chain.Forks()) {
		if l.Epoch == newest {
			size += recordSize(l.Body.bytes)
		}
		others = others || l.Epoch < newest
	}
	return others && size <= recoveryBytes
}

// checkRoom keeps heads within the owner's quota, beyond a small allowance, and
// within a bound for all.
func (h *headStore) checkRoom(key vaultKey, next *vaultHeads, size int64) error {
	allowance := int64(headAllowance)
	if next.recovers() {
		allowance *= 2
	}
	c := h.store.cat
	limit := int64(-1)
	if c.ownerLimit != nil {
		limit = max(0, c.ownerLimit(key.owner))
	}
	c.mu.Lock()
	account := *c.usageOf(key.owner)
	c.mu.Unlock()
	switch {
	case limit >= 0 && account.heads+size > allowance && account.total()+account.heads+size > limit:
		return fmt.Errorf("heads of owner %s take %d bytes: %w", key.owner.Short(), account.heads, storage.ErrQuota)
	case h.bytes+size > maxHeadStoreBytes || size > h.store.diskFree():
		return fmt.Errorf("no room for heads: %w", storage.ErrFull)
	}
	return nil
}

// epoch returns the highest epoch known of a vault; 0 when there is none.
func (h *headStore) epoch(key vaultKey) uint32 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	v := h.vaults[key]
	if v == nil || len(v.chain.Links()) == 0 {
		return 0
	}
	return v.chain.Links()[len(v.chain.Links())-1].Epoch
}

// of returns the vaults of an owner in order; h.mu is held.
func (h *headStore) of(owner grid.OwnerID) []vaultKey {
	var keys []vaultKey
	for key := range h.vaults {
		if key.owner == owner {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

// account enters that a file changed its size.
func (h *headStore) account(key vaultKey, old, next *vaultHeads) {
	grown := next.fileSize() - old.fileSize()
	h.bytes += grown
	h.store.cat.grow(key.owner, func(u *usage) *int64 { return &u.heads }, grown)
}

// fileSize returns the size of the file; 0 of none.
func (v *vaultHeads) fileSize() int64 {
	if v == nil {
		return 0
	}
	return v.size
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
		if h.vaults[key].chain.Len() == 0 {
			continue // a file that was made and no head written
		}
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
		if raw, ok := readRecord(f, link.Body.offset, link.Body.bytes); ok {
			out.Links = append(out.Links, raw)
		}
	}
	for _, link := range v.chain.Forks() {
		if raw, ok := readRecord(f, link.Body.offset, link.Body.bytes); ok && len(out.Forks) < storage.MaxHeadForks {
			out.Forks = append(out.Forks, raw)
		}
	}
	return out, nil
}

// HeadHistory implements storage.HeadStore.
func (s *Store) HeadHistory(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) ([][]byte, error) {
	if err := errors.Join(ctx.Err(), s.check()); err != nil {
		return nil, fmt.Errorf("history of heads: %w", err)
	}
	h, key := s.heads, vaultKey{owner, vault}
	h.mu.RLock()
	defer h.mu.RUnlock()
	v := h.vaults[key]
	if v == nil {
		return nil, nil
	}
	f, err := s.fs.Open(key.path())
	if err != nil {
		return nil, fmt.Errorf("history of heads: %w", err)
	}
	defer f.Close()
	for {
		links := v.chain.Below(below, func(p headPlace) int { return p.bytes })
		var out [][]byte
		for _, link := range links {
			if raw, ok := readRecord(f, link.Body.offset, link.Body.bytes); ok {
				out = append(out, raw)
			}
			below = storage.HeadCursor{Seq: link.Seq, ID: link.ID}
		}
		if len(out) > 0 || len(links) == 0 {
			return out, nil
		}
	}
}

// forget removes all heads of an owner.
func (h *headStore) forget(owner grid.OwnerID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range h.of(owner) {
		if err := h.store.fs.Remove(key.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ioFailed(err)
		}
		h.account(key, h.vaults[key], nil)
		delete(h.vaults, key)
	}
	return nil
}
