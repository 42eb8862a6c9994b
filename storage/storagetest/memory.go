package storagetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
)

// Memory is a store that keeps everything in memory. It behaves as the store on
// disk does, quota included, and is safe for concurrent use.
type Memory struct {
	// Capacity is how many bytes of shards it takes; 0 means no limit. Set it
	// before the first use.
	Capacity int

	mu     sync.Mutex
	shards map[storage.ShardID]*memoryShard
	vaults map[memoryVault]*storage.HeadChain[[]byte]
	gone   map[memoryVault][]storage.SignedDeletion // by rising number
	used   int
}

type memoryShard struct {
	header  storage.SignedHeader
	holders []storage.Holder
	data    []byte
	bad     bool
	trash   bool
}

type memoryVault struct {
	owner grid.OwnerID
	vault storage.VaultID
}

// NewMemory returns an empty store without a limit.
func NewMemory() *Memory {
	return &Memory{
		shards: map[storage.ShardID]*memoryShard{},
		vaults: map[memoryVault]*storage.HeadChain[[]byte]{},
		gone:   map[memoryVault][]storage.SignedDeletion{},
	}
}

// CreateShard implements storage.ShardCreator.
func (m *Memory) CreateShard(ctx context.Context, header storage.SignedHeader, index int, holders []storage.Holder) (storage.ShardWriter, error) {
	id := storage.ShardID{Segment: header.ID, Index: index}
	fail := func(err error) (storage.ShardWriter, error) {
		return nil, &storage.Error{Op: "put", Shard: id, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if header.IsZero() || index < 0 || index >= header.Redundancy.N {
		return fail(fmt.Errorf("%w: no such shard in its header", storage.ErrCorrupt))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deleted(header) {
		return fail(storage.ErrDeleted)
	}
	if s := m.shards[id]; s != nil && !s.bad {
		s.holders = storage.MergeHolders(s.holders, holders, header.Redundancy.N)
		return fail(storage.ErrExists)
	}
	if m.Capacity > 0 && m.used+header.ShardBytes > m.Capacity {
		return fail(storage.ErrFull)
	}
	m.used += header.ShardBytes
	return &memoryWriter{ctx: ctx, store: m, id: id, header: header,
		holders: storage.MergeHolders(holders, nil, header.Redundancy.N)}, nil
}

type memoryWriter struct {
	ctx     context.Context
	store   *Memory
	id      storage.ShardID
	header  storage.SignedHeader
	holders []storage.Holder
	data    []byte
	ended   bool
}

func (w *memoryWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, w.fail(err)
	}
	if len(w.data)+len(p) > w.header.ShardBytes {
		return 0, w.fail(fmt.Errorf("%w: more bytes than the header says", storage.ErrCorrupt))
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

func (w *memoryWriter) Commit() error {
	switch {
	case w.ended:
		return w.fail(fmt.Errorf("%w: the shard was ended before", storage.ErrCorrupt))
	case w.ctx.Err() != nil:
		w.Abort()
		return w.fail(w.ctx.Err())
	case len(w.data) != w.header.ShardBytes || blake3.Sum256(w.data) != w.header.Roots[w.id.Index]:
		w.Abort()
		return w.fail(fmt.Errorf("%w: the bytes do not match the root", storage.ErrCorrupt))
	}
	m := w.store
	m.mu.Lock()
	defer m.mu.Unlock()
	w.ended = true
	if m.deleted(w.header) {
		m.used -= w.header.ShardBytes
		return w.fail(storage.ErrDeleted)
	}
	if s := m.shards[w.id]; s != nil {
		m.used -= w.header.ShardBytes // one of two
		if !s.bad {
			s.holders = storage.MergeHolders(s.holders, w.holders, w.header.Redundancy.N)
			return nil
		}
	}
	m.shards[w.id] = &memoryShard{header: w.header, holders: w.holders, data: w.data}
	return nil
}

func (w *memoryWriter) Abort() {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if !w.ended {
		w.ended = true
		w.store.used -= w.header.ShardBytes
	}
}

func (w *memoryWriter) fail(err error) error {
	return &storage.Error{Op: "put", Shard: w.id, Err: err}
}

// OpenShard implements storage.ShardOpener.
func (m *Memory) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	fail := func(err error) (storage.ShardReader, error) {
		return nil, &storage.Error{Op: "get", Shard: id, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shards[id]
	if s == nil {
		return fail(storage.ErrNotFound)
	}
	if s.bad = s.bad || blake3.Sum256(s.data) != s.header.Roots[id.Index]; s.bad {
		return fail(storage.ErrCorrupt)
	}
	size := int64(len(s.data))
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off > size-n {
		return fail(fmt.Errorf("no range of %d bytes from %d in a shard of %d", n, off, size))
	}
	return &memoryReader{ctx: ctx, Reader: bytes.NewReader(s.data[off : off+n]), header: s.header, holders: slices.Clone(s.holders)}, nil
}

type memoryReader struct {
	ctx context.Context
	*bytes.Reader
	header  storage.SignedHeader
	holders []storage.Holder
}

func (r *memoryReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (r *memoryReader) WriteTo(w io.Writer) (int64, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.WriteTo(w)
}

func (r *memoryReader) Header() storage.SignedHeader { return r.header }
func (r *memoryReader) Holders() []storage.Holder    { return r.holders }
func (r *memoryReader) Close() error                 { return nil }

// Have implements storage.ShardStater.
func (m *Memory) Have(ctx context.Context, ids []storage.SegmentID) ([]storage.SegmentAnswer, error) {
	if len(ids) > storage.MaxHave {
		return nil, fmt.Errorf("have: %d segments at once, at most %d", len(ids), storage.MaxHave)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	answers := make([]storage.SegmentAnswer, len(ids))
	for i, id := range ids {
		answers[i].Segment = id
		for index := range storage.MaxShards {
			s := m.shards[storage.ShardID{Segment: id, Index: index}]
			if s == nil {
				continue
			}
			state := storage.ShardStored
			switch {
			case s.bad:
				state = storage.ShardBad
			case s.trash:
				state = storage.ShardTrash
			}
			answers[i].Shards = append(answers[i].Shards, storage.ShardAnswer{Index: index, State: state})
			answers[i].Holders = storage.MergeHolders(answers[i].Holders, s.holders, s.header.Redundancy.N)
		}
		if len(answers[i].Shards) == 0 && m.named(id) {
			answers[i].Shards = []storage.ShardAnswer{{State: storage.ShardDeleted}}
		}
	}
	return answers, ctx.Err()
}

// List implements storage.ShardLister.
func (m *Memory) List(ctx context.Context, vault storage.VaultID) iter.Seq2[storage.ShardID, error] {
	m.mu.Lock()
	var ids []storage.ShardID
	for id, s := range m.shards {
		if s.header.Vault == vault && !s.bad && !s.trash {
			ids = append(ids, id)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(ids, func(a, b storage.ShardID) int {
		return cmp.Or(bytes.Compare(a.Segment[:], b.Segment[:]), cmp.Compare(a.Index, b.Index))
	})
	return func(yield func(storage.ShardID, error) bool) {
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				yield(storage.ShardID{}, err)
				return
			}
			if !yield(id, nil) {
				return
			}
		}
	}
}

// DeleteShard implements storage.ShardDeleter.
func (m *Memory) DeleteShard(_ context.Context, id storage.ShardID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shards[id]
	if s == nil {
		return &storage.Error{Op: "delete", Shard: id, Err: storage.ErrNotFound}
	}
	m.used -= s.header.ShardBytes
	delete(m.shards, id)
	return nil
}

// Damage flips one bit of a stored shard, as a bad disk does. It reports
// whether there was one.
func (m *Memory) Damage(id storage.ShardID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shards[id]
	if s == nil {
		return false
	}
	s.data = bytes.Clone(s.data)
	s.data[len(s.data)/2] ^= 1
	return true
}

// PutHeads implements storage.HeadStore.
func (m *Memory) PutHeads(ctx context.Context, raw [][]byte) error {
	heads, err := storage.CheckLinks(raw)
	if err != nil {
		return fmt.Errorf("put heads: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := memoryVault{heads[0].Owner, heads[0].Vault}
	chain := m.vaults[key]
	if chain == nil {
		if len(m.vaultsOf(key.owner)) >= storage.MaxOwnerVaults {
			return fmt.Errorf("put heads: %d vaults of one owner: %w", storage.MaxOwnerVaults, storage.ErrQuota)
		}
		chain = &storage.HeadChain[[]byte]{}
		m.vaults[key] = chain
	}
	for _, head := range heads {
		link := storage.LinkOf(head, head.Raw)
		verdict, err := chain.Judge(link)
		switch verdict {
		case storage.HeadPlaced:
			chain.Place(link)
		case storage.HeadFork:
			if len(chain.Forks()) < storage.MaxHeadForks {
				chain.AddFork(link)
			}
		}
		if err != nil {
			return fmt.Errorf("put heads: %w", err)
		}
	}
	return ctx.Err()
}

func (m *Memory) vaultsOf(owner grid.OwnerID) []memoryVault {
	var keys []memoryVault
	for key := range maps.Keys(m.vaults) {
		if key.owner == owner {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b memoryVault) int { return bytes.Compare(a.vault[:], b.vault[:]) })
	return keys
}

// Heads implements storage.HeadStore.
func (m *Memory) Heads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []storage.VaultHeads
	for _, key := range m.vaultsOf(owner) {
		chain := m.vaults[key]
		v := storage.VaultHeads{Vault: key.vault}
		for _, link := range chain.Newest(func(raw []byte) int { return len(raw) }) {
			v.Links = append(v.Links, link.Body)
		}
		for _, link := range chain.Forks() {
			v.Forks = append(v.Forks, link.Body)
		}
		out = append(out, v)
	}
	return out, ctx.Err()
}

// HeadHistory implements storage.HeadStore.
func (m *Memory) HeadHistory(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	chain := m.vaults[memoryVault{owner, vault}]
	if chain == nil {
		return nil, ctx.Err()
	}
	var out [][]byte
	for _, link := range chain.Below(below, func(raw []byte) int { return len(raw) }) {
		out = append(out, link.Body)
	}
	return out, ctx.Err()
}
