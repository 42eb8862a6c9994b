package shardrpc

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// FuzzMessages gives arbitrary messages to everything that reads what another
// peer sent: nothing panics, and what is accepted is within its bounds.
func FuzzMessages(f *testing.F) {
	segment := storage.SegmentID{1}
	holder := &shardsv1.Holder{Shard: 3, Peer: make([]byte, len(grid.PeerID{})), Epoch: 2}
	answer := &shardsv1.SegmentAnswer{
		Segment: segment[:], Holders: []*shardsv1.Holder{holder},
		Shards: []*shardsv1.ShardAnswer{{Index: 1, State: shardsv1.ShardState_SHARD_STATE_STORED}},
	}
	for _, seed := range []proto.Message{
		&shardsv1.PutRequest{Start: &shardsv1.PutStart{Header: []byte("header"), Holders: []*shardsv1.Holder{holder}}},
		&shardsv1.HaveRequest{Segments: [][]byte{segment[:]}},
		answer,
		&shardsv1.ProveRequest{Segment: segment[:], Groups: []uint32{1, 2}},
		&shardsv1.HeadHistoryRequest{Owner: segment[:], Vault: segment[:], BelowSeq: 3, BelowId: segment[:]},
		&shardsv1.DeletionsResponse{Deletions: [][]byte{[]byte("deletion"), []byte("another")}},
		&shardsv1.HeadsResponse{Vault: segment[:], Heads: [][]byte{[]byte("head")}},
	} {
		wire, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var put shardsv1.PutRequest
		if proto.Unmarshal(wire, &put) == nil {
			if header, err := checkStart(&put, nil); err == nil && header.IsZero() {
				t.Error("a put without a header was accepted")
			}
			checkHolders(t, put.GetStart().GetHolders())
		}
		var have shardsv1.HaveRequest
		if proto.Unmarshal(wire, &have) == nil {
			if ids, err := segmentsFromWire(have.Segments); err == nil && len(ids) > storage.MaxHave {
				t.Errorf("%d segments asked at once", len(ids))
			}
		}
		var a shardsv1.SegmentAnswer
		if proto.Unmarshal(wire, &a) == nil {
			checkAnswer(t, &a, segment)
		}
		var prove shardsv1.ProveRequest
		if proto.Unmarshal(wire, &prove) == nil {
			if groups, err := groupsFromWire(prove.Groups); err == nil && (len(groups) < 1 || len(groups) > storage.MaxProofGroups) {
				t.Errorf("%d groups", len(groups))
			}
		}
		var history shardsv1.HeadHistoryRequest
		if proto.Unmarshal(wire, &history) == nil {
			_, _, _ = vaultFromWire(history.Owner, history.Vault)
			if below, err := cursorFromWire(history.BelowSeq, history.BelowId); err == nil && below.Seq != history.BelowSeq {
				t.Errorf("below %d", below.Seq)
			}
		}
		var page shardsv1.DeletionsResponse
		if proto.Unmarshal(wire, &page) == nil {
			var got gather
			if err := got.add(page.Deletions, 2, 100, 150); err == nil && (len(got.items) > 2 || got.size > 150) {
				t.Errorf("%d items of %d bytes", len(got.items), got.size)
			}
		}
		var heads shardsv1.HeadsResponse
		if proto.Unmarshal(wire, &heads) == nil {
			if vaults, err := addHeads(nil, &heads); err == nil && len(vaults[0].Links) > storage.MaxHeadLinks {
				t.Errorf("%d heads", len(vaults[0].Links))
			}
		}
	})
}

func checkHolders(t *testing.T, wire []*shardsv1.Holder) {
	holders, err := holdersFromWire(wire)
	if err != nil {
		return
	}
	if len(holders) > storage.MaxHolders {
		t.Errorf("%d holders", len(holders))
	}
	for _, h := range holders {
		if h.Shard < 0 || h.Shard >= storage.MaxShards {
			t.Errorf("shard %d", h.Shard)
		}
	}
}

func checkAnswer(t *testing.T, wire *shardsv1.SegmentAnswer, segment storage.SegmentID) {
	a, err := answerFromWire(wire, segment)
	if err != nil {
		return
	}
	again, err := answerFromWire(answerToWire(a), segment)
	if err != nil || len(again.Shards) != len(a.Shards) || len(again.Holders) != len(a.Holders) {
		t.Errorf("an accepted answer does not survive the way back: %v", err)
	}
}
