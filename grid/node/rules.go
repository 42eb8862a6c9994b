package node

import (
	"gotong/grid/peernet"
	gridv1 "gotong/proto/grid/v1"
	shardsv1 "gotong/proto/shards/v1"
	tasksv1 "gotong/proto/tasks/v1"
)

// methodRules is the closed table of who may call what. Every method is open to
// active members only; what depends on the request (whose shard, whose head,
// whose claim) is checked by the service itself.
func methodRules() peernet.Rules {
	return peernet.Rules{
		gridv1.Grid_SyncRoster_FullMethodName:   peernet.AnyMember,
		gridv1.Grid_OfferRecords_FullMethodName: peernet.AnyMember,
		gridv1.Grid_Offer_FullMethodName:        peernet.AnyMember,
		gridv1.Grid_Records_FullMethodName:      peernet.AnyMember,
		gridv1.Grid_Info_FullMethodName:         peernet.AnyMember,

		shardsv1.Shards_Put_FullMethodName:          peernet.AnyMember,
		shardsv1.Shards_Get_FullMethodName:          peernet.AnyMember,
		shardsv1.Shards_Have_FullMethodName:         peernet.AnyMember,
		shardsv1.Shards_List_FullMethodName:         peernet.AnyMember,
		shardsv1.Shards_PutHeads_FullMethodName:     peernet.AnyMember,
		shardsv1.Shards_Heads_FullMethodName:        peernet.AnyMember,
		shardsv1.Shards_HeadHistory_FullMethodName:  peernet.AnyMember,
		shardsv1.Shards_PutDeletions_FullMethodName: peernet.AnyMember,
		shardsv1.Shards_Deletions_FullMethodName:    peernet.AnyMember,
		shardsv1.Shards_Prove_FullMethodName:        peernet.AnyMember,

		tasksv1.Tasks_Offer_FullMethodName:      peernet.AnyMember,
		tasksv1.Tasks_GetOutput_FullMethodName:  peernet.AnyMember,
		tasksv1.Tasks_Work_FullMethodName:       peernet.AnyMember,
		tasksv1.Tasks_PutContent_FullMethodName: peernet.AnyMember,

		// A plan and a statement prove themselves; the others are for who proves
		// to know the plan, and for peers of the job's owner.
		tasksv1.Keepers_PutJob_FullMethodName:    peernet.AnyMember,
		tasksv1.Keepers_AppendJob_FullMethodName: peernet.AnyMember,
		tasksv1.Keepers_JobState_FullMethodName:  peernet.AnyMember,
		tasksv1.Keepers_ReadJob_FullMethodName:   peernet.AnyMember,
		tasksv1.Keepers_JobPlan_FullMethodName:   peernet.AnyMember,
		tasksv1.Keepers_ListJobs_FullMethodName:  peernet.AnyMember,
		tasksv1.Keepers_SayOfJob_FullMethodName:  peernet.AnyMember,
	}
}
