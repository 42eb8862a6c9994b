// Package contents keeps modules, inputs and outputs of jobs on the grid: cut
// into pieces, sealed with the key of the job, each stored as one segment under
// the grant of the job, and fetched from several holders at once.
//
// Whoever knows the key of a job, its workers and keepers, can read its
// contents; holders cannot, and cannot change them unnoticed: segments verify by
// their ids, pieces by the key, and the whole by its hash. Segments expire, with
// the job or earlier. That is all the tidying there is: what a content that was
// given up half-way left goes in the same way.
//
// Memory is bounded, whatever the content: some pieces for each call, and what
// storage/segments takes for its shards.
package contents
