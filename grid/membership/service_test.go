package membership

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/roster"
	gridv1 "gotong/proto/grid/v1"
)

// quiet returns peers that know each other's roster and do not run.
func quiet(t *testing.T, n int) *world {
	w := newWorld(t, n)
	for _, p := range w.peers {
		p.prepare()
		must(p.roster.Merge(w.peers[0].roster.All()))
	}
	return w
}

func TestServiceRefusesMalformedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := quiet(t, 2)
		s, before := w.peers[0].m.Service(), w.peers[0].roster.Digest()
		short := [][]byte{{1, 2, 3}}
		for name, err := range map[string]error{
			"hash": func() error {
				_, err := s.SyncRoster(t.Context(), &gridv1.SyncRosterRequest{Have: short})
				return err
			}(),
			"hashes": func() error {
				_, err := s.SyncRoster(t.Context(), &gridv1.SyncRosterRequest{Have: make([][]byte, maxHave+1)})
				return err
			}(),
			"statement": func() error {
				_, err := s.Offer(t.Context(), &gridv1.OfferRequest{Statements: short})
				return err
			}(),
			"peer": func() error {
				_, err := s.Records(t.Context(), &gridv1.RecordsRequest{Peers: short})
				return err
			}(),
			"number": func() error {
				_, err := s.Records(t.Context(), &gridv1.RecordsRequest{Have: []*gridv1.RecordNumber{nil}})
				return err
			}(),
			"record": func() error {
				_, err := s.OfferRecords(t.Context(), &gridv1.OfferRecordsRequest{Records: short})
				return err
			}(),
		} {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("malformed %s: %v", name, err)
			}
		}
		if w.peers[0].roster.Digest() != before {
			t.Error("the roster changed")
		}
	})
}

func TestRecordsAnswersWhatIsNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := quiet(t, 3)
		a, b, c := w.peers[0], w.peers[1], w.peers[2]
		b.meets(a)
		b.meets(c)
		s := b.m.Service()
		a2 := a.id()
		number := b.m.recordNumber(a2)
		ask := func(n uint64) *gridv1.RecordsResponse {
			return must(s.Records(t.Context(), &gridv1.RecordsRequest{
				Peers: [][]byte{a2[:]}, Have: []*gridv1.RecordNumber{{Peer: a2[:], Number: n}},
			}))
		}
		if got := ask(number - 1); len(got.Records) != 1 || len(got.Want) != 0 {
			t.Errorf("an older one: %v", got)
		}
		if got := ask(number); len(got.Records) != 0 || len(got.Want) != 0 {
			t.Errorf("the same: %v", got)
		}
		if got := ask(number + 1); len(got.Records) != 0 || len(got.Want) != 1 {
			t.Errorf("a newer one: %v", got)
		}
		if all := must(s.Records(t.Context(), &gridv1.RecordsRequest{})); len(all.Records) != 3 {
			t.Errorf("all: %d records", len(all.Records))
		}
	})
}

func TestRestoredHomeReclaimsItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := quiet(t, 2)
		a, b := w.peers[0], w.peers[1]
		newer := must(roster.SignRecord(a.node, grid.Record{Number: 1 << 40, Name: "before the restore", Created: time.Now()}))
		must(b.records.Put(newer, b.roster.View()))
		if err := a.m.syncRecords(t.Context(), b.id()); err == nil {
			t.Fatal("the other has no address yet")
		}
		a.meets(b)
		if err := a.m.syncRecords(t.Context(), b.id()); err != nil {
			t.Fatal(err)
		}
		for name, records := range map[string]*roster.Records{"a": a.records, "b": b.records} {
			r, _, _ := records.Get(a.id())
			if r.Number != 1<<40+1 || r.Name != "" || len(r.Addresses) != 1 {
				t.Errorf("%s has %+v", name, r)
			}
		}
	})
}

func TestUpdateRecordSignsOnlyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := quiet(t, 1)
		p := w.peers[0]
		before := p.m.recordNumber(p.id())
		time.Sleep(time.Hour)
		if err := p.m.UpdateRecord(func(r *grid.Record) { r.Addresses = append([]string{}, r.Addresses...) }); err != nil {
			t.Fatal(err)
		}
		if got := p.m.recordNumber(p.id()); got != before {
			t.Errorf("number %d after no change, %d before", got, before)
		}
		if err := p.m.UpdateRecord(func(r *grid.Record) { r.Name, r.Peer = "n", grid.PeerID{} }); err != nil {
			t.Fatal(err)
		}
		r, _, _ := p.records.Get(p.id())
		if r.Number <= before || r.Name != "n" || !bytes.Equal(r.BoxKey, p.node.BoxKey().PublicKey().Bytes()) {
			t.Errorf("%+v", r)
		}
		if err := p.m.UpdateRecord(func(r *grid.Record) { r.Addresses = []string{"nonsense"} }); err == nil {
			t.Error("a record that others would refuse was signed")
		}
	})
}

func TestUnknownPeerIsAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.startAll()
		w.within(30*time.Second, "all see all alive", func() bool { return allSee(w.peers, w.peers, grid.StateAlive) })
		a, b := w.peers[0].m, w.peers[1].m
		b.senders.note(w.peers[0].id())
		b.hints.take()
		stranger := grid.PeerID{7}
		b.askAbout(stranger)
		b.askAbout(stranger) // not again so soon
		if pulls := b.hints.take(); len(pulls) == 0 {
			t.Error("nobody is asked")
		}
		b.askAbout(stranger)
		if pulls := b.hints.take(); len(pulls) != 0 {
			t.Error("asked twice within a minute")
		}
		for i := range 3 * maxAsked {
			a.askAbout(grid.PeerID{1, byte(i), byte(i >> 8)})
		}
		if n := len(a.hints.asked); n > maxAsked {
			t.Errorf("%d PeerIDs remembered", n)
		}
	})
}

func FuzzRequests(f *testing.F) {
	id := grid.PeerID{1}
	seed := func(m proto.Message) {
		f.Add(must(proto.Marshal(m)))
	}
	seed(&gridv1.RecordsRequest{Peers: [][]byte{id[:]}, Have: []*gridv1.RecordNumber{{Peer: id[:], Number: 3}}})
	seed(&gridv1.RecordsRequest{Have: []*gridv1.RecordNumber{{}}})
	seed(&gridv1.SyncRosterRequest{Digest: id[:], Have: [][]byte{id[:], {1}}})
	f.Add(rosterPayload(digest{1}, id))
	f.Fuzz(func(t *testing.T, data []byte) {
		var records gridv1.RecordsRequest
		if proto.Unmarshal(data, &records) == nil {
			peers, err := parsePeers(records.GetPeers())
			if err == nil && len(peers) != len(records.GetPeers()) {
				t.Error("peers were lost")
			}
			if numbers, err := parseNumbers(records.GetHave()); err == nil && len(numbers) > len(records.GetHave()) {
				t.Error("numbers were made up")
			}
		}
		var statements gridv1.SyncRosterRequest
		if proto.Unmarshal(data, &statements) == nil {
			if hashes, err := parseHashes(statements.GetHave()); err == nil {
				for i, b := range hashList(hashes) {
					if !bytes.Equal(b, statements.GetHave()[i]) {
						t.Error("hash changed")
					}
				}
			}
		}
		if d, from, ok := parseRosterPayload(data); ok && !bytes.Equal(rosterPayload(d, from), data) {
			t.Error("payload does not write back")
		}
	})
}

func TestWhoRemovesItselfHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := quiet(t, 2)
		a, b := w.peers[0], w.peers[1]
		if err := b.roster.Remove(b.node, roster.RemoveParams{Peer: b.id()}); err != nil {
			t.Fatal(err)
		}
		must(a.roster.Merge(b.roster.All()))
		if gone := a.m.Removed(); len(gone) != 1 || gone[0].ID != b.id() || gone[0].State != grid.StateLeft {
			t.Errorf("%+v", gone)
		}
		if peers := a.m.Peers(); len(peers) != 1 {
			t.Errorf("%d members", len(peers))
		}
	})
}
