/*
 * crash.h - named places where a death matters, for fault tests. Empty unless AZOTH_FAULTS is set at
 * build time; then AZOTH_CRASH="name" or "name:N" in the environment makes the process die by
 * SIGKILL at the N-th passing (default 1), or stop itself with AZOTH_CRASH_ACTION=stop. AZOTH_DELAY="name"
 * makes it sleep for 1 ms at each passing.
 */
#ifndef CORE_CRASH_H
#define CORE_CRASH_H

#define CRASH_POINTS(X)                                                                            \
    X(create_begun)                                                                                \
    X(create_uuid)                                                                                 \
    X(create_lock)                                                                                 \
    X(create_begins_store)                                                                         \
    X(create_stored)                                                                               \
    X(create_reserve)                                                                              \
    X(create_ready)                                                                                \
    X(create_renamed)                                                                              \
    X(participant_filled)                                                                          \
    X(participant_joined)                                                                          \
    X(participant_left)                                                                            \
    X(place_taken)                                                                                 \
    X(preflight_bit_taken)                                                                         \
    X(preflight_claimed)                                                                           \
    X(preflight_intents_stored)                                                                    \
    X(preflight_intended)                                                                          \
    X(preflight_one_stripe)                                                                        \
    X(preflight_locked)                                                                            \
    X(preflight_one_block)                                                                         \
    X(preflight_payload_stored)                                                                    \
    X(preflight_submitted)                                                                         \
    X(preflight_queued)                                                                            \
    X(preflight_wakes)                                                                             \
    X(preflight_collected)                                                                         \
    X(preflight_unlocked)                                                                          \
    X(stripe_marked)                                                                               \
    X(stripe_seen_free)                                                                            \
    X(stripe_bit_set)                                                                              \
    X(stripe_bit_withdrawn)                                                                        \
    X(stripe_released)                                                                             \
    X(slot_emptied)                                                                                \
    X(slot_freed)                                                                                  \
    X(slot_waiters_taken)                                                                          \
    X(segment_opened)                                                                              \
    X(segment_allocated)                                                                           \
    X(segment_made)                                                                                \
    X(segment_retired_state)                                                                       \
    X(segment_unlinked)                                                                            \
    X(writer_epoch)                                                                                \
    X(writer_incarnation)                                                                          \
    X(writer_one_answered)                                                                         \
    X(writer_recovered)                                                                            \
    X(writer_taken)                                                                                \
    X(writer_applied)                                                                              \
    X(chain_taken)                                                                                 \
    X(control_applied)                                                                             \
    X(redo_trimmed)                                                                                \
    X(writer_halves)                                                                               \
    X(writer_committed)                                                                            \
    X(writer_head_published)                                                                       \
    X(writer_stripes_released)                                                                     \
    X(writer_published)                                                                            \
    X(writer_one_completed)                                                                        \
    X(writer_completed)                                                                            \
    X(writer_woken)                                                                                \
    X(pause_claimed)                                                                               \
    X(pause_filled)                                                                                \
    X(pause_asked)                                                                                 \
    X(pause_confirmed)                                                                             \
    X(pause_freed)                                                                                 \
    X(writer_seal_shown)                                                                           \
    X(writer_paused)                                                                               \
    X(writer_unpaused)                                                                             \
    X(writer_draining)                                                                             \
    X(writer_absent)                                                                               \
    X(reserve_given_up)                                                                            \
    X(reserve_made)                                                                                \
    X(reaper_chosen)                                                                               \
    X(reaper_marked)                                                                               \
    X(reaper_requeued)                                                                             \
    X(reaper_stripes_released)                                                                     \
    X(reaper_done)                                                                                 \
    X(feed_asked)                                                                                  \
    X(feed_row_filled)                                                                             \
    X(feed_text_begun)                                                                             \
    X(feed_sent)                                                                                   \
    X(projector_link_made)                                                                         \
    X(projector_linked)                                                                            \
    X(projector_file_made)                                                                         \
    X(projector_identified)                                                                        \
    X(projector_migrating)                                                                         \
    X(projector_migrated)                                                                          \
    X(projector_grants)                                                                            \
    X(projector_begun)                                                                             \
    X(projector_applied)                                                                           \
    X(projector_committed)                                                                         \
    X(projector_reports)                                                                           \
    X(effects_commits)                                                                             \
    X(effects_committed)                                                                           \
    X(effects_answered)                                                                            \
    X(effects_ran)                                                                                 \
    X(projector_dead_lettered)                                                                     \
    X(projector_retry_written)                                                                     \
    X(projector_replayed)                                                                          \
    X(projector_command_taken)                                                                     \
    X(projector_command_done)                                                                      \
    X(archive_written)                                                                             \
    X(archive_synced)                                                                              \
    X(archive_placed)                                                                              \
    X(archive_recorded)                                                                            \
    X(archive_deleted)                                                                             \
    X(archive_moved)                                                                               \
    X(generation_named)                                                                            \
    X(generation_swapped)                                                                          \
    X(rebuild_filled)                                                                              \
    X(rebuild_held)                                                                                \
    X(rebuild_closed)                                                                              \
    X(backupfile_made)                                                                             \
    X(backupfile_begun)                                                                            \
    X(backupfile_manifest)                                                                         \
    X(backupfile_written)                                                                          \
    X(backupfile_synced)                                                                           \
    X(backupfile_renamed)                                                                          \
    X(copy_opened)                                                                                 \
    X(copy_begun)                                                                                  \
    X(backup_projection_copied)                                                                    \
    X(backup_projections_copied)                                                                   \
    X(backup_began)                                                                                \
    X(backup_stored)                                                                               \
    X(backup_archived)                                                                             \
    X(backup_written)                                                                              \
    X(increment_mark_set)                                                                          \
    X(increment_began)                                                                             \
    X(increment_part)                                                                              \
    X(increment_written)                                                                           \
    X(increment_durable)                                                                           \
    X(increment_mark_moved)                                                                        \
    X(increment_applied)                                                                           \
    X(prune_removed)                                                                               \
    X(exec_begun)                                                                                  \
    X(exec_ended)                                                                                  \
    X(exec_noted)                                                                                  \
    X(restore_begun)                                                                               \
    X(restore_segments)                                                                            \
    X(restore_loaded)                                                                              \
    X(restore_checked)                                                                             \
    X(restore_identified)                                                                          \
    X(restore_adopted)                                                                             \
    X(restore_surrounded)                                                                          \
    X(restore_ready)                                                                               \
    X(restore_named)                                                                               \
    X(restore_done)

enum crash_point {
#define CRASH_X(name) CRASH_##name,
    CRASH_POINTS(CRASH_X)
#undef CRASH_X
        CRASH_POINT_COUNT
};

/*
 * Deliberate defects, to show that a test which looks for their effects finds them. AZOTH_BREAK="name"
 * in the environment chooses one; BROKEN() is 0 in every other build.
 */
#define BREAKS(X)                                                                                  \
    X(locks)        /* stripes are taken without looking who holds them */                         \
    X(early_answer) /* results are told before their batch is committed */

enum broken {
#define BREAK_X(name) BREAK_##name,
    BREAKS(BREAK_X)
#undef BREAK_X
        BREAK_COUNT
};

#ifdef AZOTH_FAULTS
int broken(enum broken what); /* any thread */
#define BROKEN(name) broken(BREAK_##name)
#else
#define BROKEN(name) 0
#endif

#ifdef AZOTH_FAULTS
void crash_point(enum crash_point at); /* any thread; does not return when it is the one */
#define CRASH_POINT(name) crash_point(CRASH_##name)
#else
#define CRASH_POINT(name) ((void)0)
#endif

#endif
