// Package rules decides how many task slots a donor's machine gives right now.
//
// [Decide] is a pure function of the donor's [Rules], the [Facts] and the time:
// the same input gives the same [Decision], which names every rule that takes
// slots away in words. [Sensors] find the facts of the running machine: when its
// user last touched it, what the programs of others use, whether it runs on its
// battery, how much memory and disk are free, which programs run.
//
// Nothing here starts or stops a guest; tasks/worker does.
package rules
