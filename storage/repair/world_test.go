package repair_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/repair"
	"gotong/storage/segments"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

const (
	worldInterval = 10 * time.Second
	worldGrace    = 2 * time.Minute
	worldGive     = 1 << 30
)

// world is some peers with real stores on disk and real segments, without a
// network: who is up is what it says. It runs in a synctest bubble.
type world struct {
	t     *testing.T
	vault storage.VaultID
	slow  bool // rounds each hour, no audits

	mu      sync.Mutex // for those who read the lists below while the peers run
	peers   []*worldPeer
	removed []grid.Peer
}

// members returns who is a member.
func (w *world) members() []*worldPeer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peers
}

// remove makes the first peer no member.
func (w *world) remove() {
	w.mu.Lock()
	defer w.mu.Unlock()
	gone := w.peers[0].device
	w.removed = []grid.Peer{{ID: gone.Peer, Owner: gone.Owner, State: grid.StateRemoved}}
	w.peers = w.peers[1:]
}

type worldPeer struct {
	w      *world
	device storagetest.Device
	dir    string
	rows   *rowList

	mu       sync.Mutex
	up       bool
	since    time.Time // when up changed
	label    string    // site; empty: the owner
	store    *shardstore.Store
	repairer *repair.Repairer
	segments *segments.Segments
	stop     context.CancelFunc
	done     chan struct{}
}

// newWorld makes peers of which the first is the owner and holds nothing.
func newWorld(t *testing.T, n int, slow bool) *world {
	w := &world{t: t, vault: storage.VaultID{7}, slow: slow}
	for i := range n {
		p := &worldPeer{w: w, device: storagetest.NewDevice(fmt.Sprint("peer ", i)), dir: filepath.Join(t.TempDir(), "store")}
		if i == 0 {
			p.rows = &rowList{}
		}
		w.peers = append(w.peers, p)
	}
	for _, p := range w.peers {
		p.start()
	}
	return w
}

func (w *world) stopAll() {
	for _, p := range w.peers {
		p.shut()
	}
}

func (w *world) peer(id grid.PeerID) *worldPeer {
	for _, p := range w.members() {
		if p.device.Peer == id {
			return p
		}
	}
	return nil
}

// start opens what the peer left on its disk and runs its repair.
func (p *worldPeer) start() {
	p.w.t.Helper()
	store, err := shardstore.Open(p.dir, shardstore.Config{CapacityBytes: worldGive, KeepFreeBytes: -1})
	if err != nil {
		p.w.t.Fatal(err)
	}
	c := segments.Config{Holders: p, Node: p.device.Key, Vault: p.w.vault, Owner: p.device.Owner,
		Redundancy: func() storage.Redundancy { return storage.Redundancy{K: 2, N: 4} }}
	if p.rows != nil {
		c.Grant = func() []byte { return p.device.Grant }
	}
	moved, err := segments.New(c)
	if err != nil {
		p.w.t.Fatal(err)
	}
	config := repair.Config{Self: p.device.Peer, Store: store, Segments: moved, Grid: p, Path: p.dir + ".repair",
		Grace: worldGrace, Interval: worldInterval, Logger: slog.New(slog.NewTextHandler(p.w.t.Output(), nil))}
	if p.w.slow {
		config.Interval, config.Grace, config.Retention = time.Hour, 24*time.Hour, 48*time.Hour
		config.Scrub, config.Audits = 48*time.Hour, 365*24*time.Hour
	}
	if p.rows != nil {
		config.Rows = p.rows
	}
	repairer, err := repair.New(config)
	if err != nil {
		p.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.mu.Lock()
	p.up, p.since = true, time.Now()
	p.store, p.segments, p.repairer, p.stop, p.done = store, moved, repairer, cancel, make(chan struct{})
	p.mu.Unlock()
	go func() {
		defer close(p.done)
		if err := repairer.Run(ctx); err != nil {
			p.w.t.Error(err)
		}
	}()
}

// shut stops the peer; nothing happens when it is not up.
func (p *worldPeer) shut() {
	p.mu.Lock()
	was := p.up
	if was {
		p.up, p.since = false, time.Now()
	}
	p.mu.Unlock()
	if !was {
		return
	}
	p.stop()
	<-p.done
	p.segments.Close()
	if err := p.store.Close(); err != nil {
		p.w.t.Error(err)
	}
}

// wipe takes a peer's disk away.
func (p *worldPeer) wipe() {
	p.shut()
	if err := os.RemoveAll(p.dir); err != nil {
		p.w.t.Fatal(err)
	}
	p.start()
}

func (p *worldPeer) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

func (p *worldPeer) site() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return grid.Peer{Owner: p.device.Owner, Record: grid.Record{Site: p.label}}.Site()
}

// holds returns the shards of a segment that the peer has.
func (p *worldPeer) holds(id storage.SegmentID) (indexes []int) {
	answers, err := p.store.Have(p.w.t.Context(), []storage.SegmentID{id})
	if err != nil {
		p.w.t.Fatal(err)
	}
	for _, a := range answers[0].Shards {
		if a.State == storage.ShardStored {
			indexes = append(indexes, a.Index)
		}
	}
	return indexes
}

// rot flips a bit of a shard on the peer's disk.
func (p *worldPeer) rot(shard storage.ShardID) {
	p.w.t.Helper()
	path := filepath.Join(p.dir, "shards", shard.Segment.String()[:2], shard.String())
	content, err := os.ReadFile(path)
	if err != nil {
		p.w.t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		p.w.t.Fatal(err)
	}
}

// Peers implements repair.Grid.
func (p *worldPeer) Peers() []grid.Peer {
	var out []grid.Peer
	for _, other := range p.w.members() {
		other.mu.Lock()
		peer := grid.Peer{ID: other.device.Peer, Owner: other.device.Owner, State: grid.StateAway, Since: other.since, Seen: other.since}
		peer.Record.PledgeBytes, peer.Record.Site = worldGive, other.label
		if other.up {
			peer.State = grid.StateAlive
		}
		other.mu.Unlock()
		out = append(out, peer)
	}
	return out
}

// Removed implements repair.Grid.
func (p *worldPeer) Removed() []grid.Peer {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.removed
}

// Members implements segments.Holders.
func (p *worldPeer) Members() []grid.PeerID {
	var out []grid.PeerID
	for _, peer := range p.w.members() {
		out = append(out, peer.device.Peer)
	}
	return out
}

// Site implements segments.Holders.
func (p *worldPeer) Site(id grid.PeerID) string {
	if peer := p.w.peer(id); peer != nil {
		return peer.site()
	}
	return ""
}

// Candidates implements segments.Holders.
func (p *worldPeer) Candidates(_ context.Context, owner grid.OwnerID, _ grid.PeerID) []placement.Candidate {
	var out []placement.Candidate
	for _, peer := range p.w.members() {
		if peer.device.Owner != owner && peer.alive() {
			out = append(out, placement.Candidate{Peer: peer.device.Peer, Site: peer.site(), Pledge: worldGive, Free: worldGive})
		}
	}
	return out
}

// Shards implements segments.Holders and repair.Grid.
func (p *worldPeer) Shards(id grid.PeerID) (storage.RemoteShards, error) {
	peer := p.w.peer(id)
	if peer == nil {
		return nil, grid.ErrUnknownPeer
	}
	peer.mu.Lock()
	defer peer.mu.Unlock()
	if !peer.up {
		return nil, grid.ErrUnreachable
	}
	return peer.store, nil
}

// put stores a segment for the owner.
func (w *world) put(size int, seed uint64) (storage.SegmentID, []byte) {
	w.t.Helper()
	owner := w.peers[0]
	data := make([]byte, size)
	_, _ = io.ReadFull(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), data)
	put, err := owner.segments.Put(w.t.Context(), data)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := owner.rows.Observe(w.t.Context(), []repair.Row{{ID: put.ID, Redundancy: put.Redundancy, Holders: put.Holders,
		Committed: put.Committed, Complete: put.Complete, SurvivesSites: put.SurvivesSites}}); err != nil {
		w.t.Fatal(err)
	}
	return put.ID, data
}

// deletion signs a deletion by the owner.
func (w *world) deletion(number uint64, ids ...storage.SegmentID) []byte {
	w.t.Helper()
	d, err := storage.SignDeletion(w.peers[0].device.Key, storage.Deletion{Vault: w.vault, Owner: w.peers[0].device.Owner, Number: number,
		Created: time.Now(), Grant: w.peers[0].device.Grant, Segments: ids})
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Raw
}

// stored counts the different shards of a segment that peers which are up have.
func (w *world) stored(id storage.SegmentID) int {
	seen := map[int]bool{}
	for _, p := range w.peers {
		if !p.alive() {
			continue
		}
		for _, index := range p.holds(id) {
			seen[index] = true
		}
	}
	return len(seen)
}

// wait returns when condition holds.
func (w *world) wait(what string, within time.Duration, condition func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(within); !condition(); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// rowList is a vault's rows in memory.
type rowList struct {
	mu   sync.Mutex
	rows map[storage.SegmentID]repair.Row
}

func (l *rowList) Segments(context.Context) iter.Seq2[repair.Row, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows []repair.Row
	for _, row := range l.rows {
		rows = append(rows, row)
	}
	return func(yield func(repair.Row, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

func (l *rowList) Observe(_ context.Context, rows []repair.Row) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rows == nil {
		l.rows = map[storage.SegmentID]repair.Row{}
	}
	for _, row := range rows {
		l.rows[row.ID] = row
	}
	return nil
}

func (l *rowList) row(id storage.SegmentID) repair.Row {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rows[id]
}

func (l *rowList) drop(id storage.SegmentID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.rows, id)
}
