package shardrpc

import (
	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// states pairs the answers of Have with their numbers on the wire.
var states = map[storage.ShardState]shardsv1.ShardState{
	storage.ShardStored:  shardsv1.ShardState_SHARD_STATE_STORED,
	storage.ShardTrash:   shardsv1.ShardState_SHARD_STATE_TRASH,
	storage.ShardDeleted: shardsv1.ShardState_SHARD_STATE_DELETED,
	storage.ShardBad:     shardsv1.ShardState_SHARD_STATE_BAD,
	storage.ShardNone:    shardsv1.ShardState_SHARD_STATE_NONE,
}

func stateFromWire(wire shardsv1.ShardState) (storage.ShardState, bool) {
	for state, number := range states {
		if number == wire {
			return state, true
		}
	}
	return "", false
}

func holdersToWire(holders []storage.Holder) []*shardsv1.Holder {
	out := make([]*shardsv1.Holder, len(holders))
	for i, h := range holders {
		out[i] = &shardsv1.Holder{Shard: uint32(h.Shard), Peer: h.Peer[:], Epoch: h.Epoch}
	}
	return out
}

// holdersFromWire reads a holder list of another peer.
func holdersFromWire(wire []*shardsv1.Holder) ([]storage.Holder, error) {
	if len(wire) > storage.MaxHolders {
		return nil, violation("holder list of %d", len(wire))
	}
	out := make([]storage.Holder, len(wire))
	for i, h := range wire {
		if h.GetShard() >= storage.MaxShards || len(h.GetPeer()) != len(grid.PeerID{}) {
			return nil, violation("holder list names shard %d at a peer of %d bytes", h.GetShard(), len(h.GetPeer()))
		}
		out[i] = storage.Holder{Shard: int(h.Shard), Peer: grid.PeerID(h.Peer), Epoch: h.Epoch}
	}
	return out, nil
}

func shardFromWire(segment []byte, index uint32) (storage.ShardID, error) {
	if len(segment) != len(storage.SegmentID{}) || index >= storage.MaxShards {
		return storage.ShardID{}, violation("shard %d of a segment id of %d bytes", index, len(segment))
	}
	return storage.ShardID{Segment: storage.SegmentID(segment), Index: int(index)}, nil
}

func segmentsToWire(ids []storage.SegmentID) [][]byte {
	out := make([][]byte, len(ids))
	for i := range ids {
		out[i] = ids[i][:]
	}
	return out
}

func segmentsFromWire(wire [][]byte) ([]storage.SegmentID, error) {
	if len(wire) > storage.MaxHave {
		return nil, violation("%d segments asked, at most %d", len(wire), storage.MaxHave)
	}
	out := make([]storage.SegmentID, len(wire))
	for i, id := range wire {
		if len(id) != len(storage.SegmentID{}) {
			return nil, violation("segment id of %d bytes", len(id))
		}
		out[i] = storage.SegmentID(id)
	}
	return out, nil
}

func answerToWire(a storage.SegmentAnswer) *shardsv1.SegmentAnswer {
	out := &shardsv1.SegmentAnswer{Segment: a.Segment[:], Holders: holdersToWire(a.Holders)}
	for _, s := range a.Shards {
		out.Shards = append(out.Shards, &shardsv1.ShardAnswer{Index: uint32(s.Index), State: states[s.State]})
	}
	return out
}

// answerFromWire reads one answer, which must be about segment want.
func answerFromWire(wire *shardsv1.SegmentAnswer, want storage.SegmentID) (storage.SegmentAnswer, error) {
	a := storage.SegmentAnswer{Segment: want}
	if string(wire.GetSegment()) != string(want[:]) || len(wire.Shards) > storage.MaxShards {
		return a, violation("answer about another segment, or %d shards", len(wire.GetShards()))
	}
	for _, s := range wire.Shards {
		state, ok := stateFromWire(s.GetState())
		if !ok || s.Index >= storage.MaxShards {
			return a, violation("shard %d in state %d", s.GetIndex(), s.GetState())
		}
		a.Shards = append(a.Shards, storage.ShardAnswer{Index: int(s.Index), State: state})
	}
	var err error
	a.Holders, err = holdersFromWire(wire.Holders)
	return a, err
}
