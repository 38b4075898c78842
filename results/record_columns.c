/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of a record: one row each, in the order in which they are written. */
#include "results/columns.h"
#include "results/record.h"

#include <stddef.h>

enum {
    COMM = 1 << EP_RECORD_COMM,
    LINKS = 1 << EP_RECORD_LINKS,
    KERNELS = 1 << EP_RECORD_KERNELS,
    LAYER = 1 << EP_RECORD_LAYER,
    ALL = COMM | LINKS | KERNELS | LAYER,
    EP = COMM | LAYER /* what concerns tokens and experts */
};

/* clang-format off */
static const struct ep_column note_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_note, field)
    {"name", EP_COLUMN_TEXT, 0, ALL, F(name)},
    {"text", EP_COLUMN_TEXT, 0, ALL, F(text)},
    {.name = NULL},
#undef F
};

static const struct ep_column phase_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_phase, field)
    {"name", EP_COLUMN_TEXT, 0, ALL, F(name)},
    {"median_s", EP_COLUMN_F64, 0, ALL, F(median_s)},
    {"low_s", EP_COLUMN_F64, 0, 0, F(low_s)},
    {"high_s", EP_COLUMN_F64, 0, 0, F(high_s)},
    {"rank_median_s", EP_COLUMN_F64S, 0, 0, F(rank_median_s)},
    {"copied_bytes_max", EP_COLUMN_I64, 0, 0, F(copied_bytes_max)},
    {"rank_wait_s", EP_COLUMN_F64S, LAYER, 0, F(rank_wait_s)},
    {.name = NULL},
#undef F
};

static const struct ep_column overlap_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_overlap, field)
    {"chunks", EP_COLUMN_I64, LAYER, LAYER, F(chunks)},
    {"n", EP_COLUMN_I64, LAYER, 0, F(n)},
    {"whole_s", EP_COLUMN_F64, LAYER, 0, F(whole_s)},
    {"steps_s", EP_COLUMN_F64, LAYER, 0, F(steps_s)},
    {"median_s", EP_COLUMN_F64, LAYER, 0, F(median_s)},
    {"low_s", EP_COLUMN_F64, LAYER, 0, F(low_s)},
    {"high_s", EP_COLUMN_F64, LAYER, 0, F(high_s)},
    {"exchange_s", EP_COLUMN_F64, LAYER, 0, F(exchange_s)},
    {"bound_s", EP_COLUMN_F64, LAYER, 0, F(bound_s)},
    {"speedup", EP_COLUMN_F64, LAYER, 0, F(speedup)},
    {"speedup_low", EP_COLUMN_F64, LAYER, 0, F(speedup_low)},
    {"speedup_high", EP_COLUMN_F64, LAYER, 0, F(speedup_high)},
    {"hidden", EP_COLUMN_SIGNED, LAYER, 0, F(hidden)},
    {"hidden_low", EP_COLUMN_SIGNED, LAYER, 0, F(hidden_low)},
    {"hidden_high", EP_COLUMN_SIGNED, LAYER, 0, F(hidden_high)},
    {"hidden_bound", EP_COLUMN_SIGNED, LAYER, 0, F(hidden_bound)},
    {"compute_slowdown", EP_COLUMN_F64, LAYER, 0, F(compute_slowdown)},
    {"exchange_slowdown", EP_COLUMN_F64, LAYER, 0, F(exchange_slowdown)},
    {.name = NULL},
#undef F
};

static const struct ep_column check_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_check, field)
    {"rows", EP_COLUMN_I64, 0, 0, F(rows)},
    {"wrong", EP_COLUMN_I64, 0, 0, F(wrong)},
    {"missing", EP_COLUMN_I64, 0, 0, F(missing)},
    {"doubled", EP_COLUMN_I64, 0, 0, F(doubled)},
    {.name = NULL},
#undef F
};

static const struct ep_column basis_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_bytes, field)
    {"total", EP_COLUMN_I64, 0, 0, F(total)},
    {"remote", EP_COLUMN_I64, 0, 0, F(remote)},
    {"max_out", EP_COLUMN_I64, 0, 0, F(max_out)},
    {"max_in", EP_COLUMN_I64, 0, 0, F(max_in)},
    {.name = NULL},
#undef F
};

static const struct ep_column bytes_columns[] = {
#define F(basis) .offset = (basis) * sizeof(struct ep_record_bytes), .columns = basis_columns
    {"copies", EP_COLUMN_OBJECT, 0, 0, F(EP_RECORD_COPIES)},
    {"rank_dedup", EP_COLUMN_OBJECT, 0, 0, F(EP_RECORD_RANK_DEDUP)},
    {"node_dedup", EP_COLUMN_OBJECT, 0, 0, F(EP_RECORD_NODE_DEDUP)},
    {.name = NULL},
#undef F
};

static const struct ep_column message_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_message_bin, field)
    {"level", EP_COLUMN_I64, 0, ALL, F(level)},
    {"log2_size", EP_COLUMN_I64, 0, ALL, F(log2_size)},
    {"count", EP_COLUMN_I64, 0, ALL, F(count)},
    {"bytes", EP_COLUMN_I64, 0, ALL, F(bytes)},
    {.name = NULL},
#undef F
};

static const struct ep_column level_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_level, field)
    {"name", EP_COLUMN_TEXT, 0, ALL, F(name)},
    {"total", EP_COLUMN_I64, 0, 0, F(total)},
    {"max_in", EP_COLUMN_I64, 0, 0, F(max_in)},
    {"max_out", EP_COLUMN_I64, 0, 0, F(max_out)},
    {"messages", EP_COLUMN_I64, 0, 0, F(messages)},
    {.name = NULL},
#undef F
};

static const struct ep_column port_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_port, field)
    {"name", EP_COLUMN_TEXT, 0, ALL, F(name)},
    {"kind", EP_COLUMN_TEXT, 0, ALL, F(kind)},
    {"direction", EP_COLUMN_TEXT, 0, ALL, F(direction)},
    {"bytes", EP_COLUMN_I64, 0, ALL, F(bytes)},
    {.name = NULL},
#undef F
};

static const struct ep_column gemm_columns[] = {
#define F(field) .offset = offsetof(struct ep_record_gemm, field)
    {"backend", EP_COLUMN_TEXT, 0, 0, F(backend)},
    {"dtype", EP_COLUMN_TEXT, 0, 0, F(dtype)},
    {"m", EP_COLUMN_I64, 0, 0, F(m)},
    {"n", EP_COLUMN_I64, 0, 0, F(n)},
    {"k", EP_COLUMN_I64, 0, 0, F(k)},
    {"groups", EP_COLUMN_I64, 0, 0, F(groups)},
    {"weights_cold", EP_COLUMN_FLAG, 0, 0, F(weights_cold)},
    {"ranks_active", EP_COLUMN_I64, 0, 0, F(ranks_active)},
    {"flops", EP_COLUMN_F64, 0, 0, F(flops)},
    {"bytes", EP_COLUMN_F64, 0, 0, F(bytes)},
    {.name = NULL},
#undef F
};

#define F(field) .offset = offsetof(struct ep_record, field)
#define LIST(field, item, table) \
    .offset = offsetof(struct ep_record, field), .columns = table, .item_size = sizeof(struct item)
#define PART(field, table) .offset = offsetof(struct ep_record, field), .columns = table
static const struct ep_column record_columns[] = {
    /* name, type, kinds (0 = all), kinds that require it, field */
    {"record_id", EP_COLUMN_TEXT, 0, ALL, F(record_id)},
    {"run_id", EP_COLUMN_TEXT, 0, ALL, F(run_id)},
    {"case", EP_COLUMN_TEXT, 0, ALL, F(case_name)},
    {"host", EP_COLUMN_TEXT, 0, ALL, F(host)},
    {"launch_idx", EP_COLUMN_I64, 0, ALL, F(launch_idx)},
    {"order_idx", EP_COLUMN_I64, 0, ALL, F(order_idx)},
    {"visit_idx", EP_COLUMN_I64, 0, ALL, F(visit_idx)},
    {"start_utc_s", EP_COLUMN_F64, 0, ALL, F(start_utc_s)},
    {"ranks", EP_COLUMN_I64, 0, ALL, F(ranks)},
    {"nodes", EP_COLUMN_I64, 0, ALL, F(nodes)},
    {"ranks_per_node", EP_COLUMN_I64, 0, 0, F(ranks_per_node)},
    {"rank_order", EP_COLUMN_TEXT, 0, 0, F(rank_order)},
    {"seed", EP_COLUMN_I64, 0, EP, F(seed)},
    {"cadence", EP_COLUMN_TEXT, 0, EP, F(cadence)},
    {"buffers", EP_COLUMN_TEXT, 0, 0, F(buffers)},
    {"pages", EP_COLUMN_TEXT, 0, 0, F(pages)},
    {"huge_page_bytes", EP_COLUMN_I64, 0, 0, F(huge_page_bytes)},
    {"threads", EP_COLUMN_I64, 0, 0, F(threads)},
    {"n", EP_COLUMN_I64, 0, ALL, F(n)},
    {"warmup_s", EP_COLUMN_F64, 0, 0, F(warmup_s)},
    {"median_s", EP_COLUMN_F64, 0, ALL, F(median_s)},
    {"low_s", EP_COLUMN_F64, 0, 0, F(low_s)},
    {"high_s", EP_COLUMN_F64, 0, 0, F(high_s)},
    {"min_s", EP_COLUMN_F64, 0, ALL, F(min_s)},
    {"p95_s", EP_COLUMN_F64, 0, 0, F(p95_s)},
    {"p99_s", EP_COLUMN_F64, 0, 0, F(p99_s)},
    {"mad_s", EP_COLUMN_F64, 0, 0, F(mad_s)},
    {"lag1", EP_COLUMN_SIGNED, 0, 0, F(lag1)},
    {"stop_reason", EP_COLUMN_TEXT, 0, 0, F(stop_reason)},
    {"samples_s", EP_COLUMN_F64S, 0, ALL, F(samples_s)},
    {"rank_median_s", EP_COLUMN_F64S, 0, 0, F(rank_median_s)},
    {"bound_s", EP_COLUMN_F64, 0, 0, F(bound_s)},
    {"bound_name", EP_COLUMN_TEXT, 0, 0, F(bound_name)},
    {"null_s", EP_COLUMN_F64, 0, 0, F(null_s)},
    {"steal_s", EP_COLUMN_F64, 0, 0, F(steal_s)},
    {"context_switches", EP_COLUMN_I64, 0, 0, F(context_switches)},
    {"page_faults", EP_COLUMN_I64, 0, 0, F(page_faults)},
    {"warnings", EP_COLUMN_LIST, 0, 0, LIST(warnings, ep_record_note, note_columns)},

    {"transport", EP_COLUMN_TEXT, EP, EP, F(transport)},
    {"algorithm", EP_COLUMN_TEXT, EP, EP, F(algorithm)},
    {"mpi_params", EP_COLUMN_LIST, EP | LINKS, 0, LIST(mpi_params, ep_record_note, note_columns)},
    {"op", EP_COLUMN_TEXT, EP, COMM, F(op)},
    {"model", EP_COLUMN_TEXT, EP | KERNELS, 0, F(model)},
    {"tokens", EP_COLUMN_I64, EP, EP, F(tokens)},
    {"tokens_per_rank", EP_COLUMN_I64S, EP, 0, F(tokens_per_rank)},
    {"hidden", EP_COLUMN_I64, EP, EP, F(hidden)},
    {"experts", EP_COLUMN_I64, EP, EP, F(experts)},
    {"top_k", EP_COLUMN_I64, EP, EP, F(top_k)},
    {"dtype", EP_COLUMN_TEXT, EP | KERNELS, EP, F(dtype)},
    {"combine_dtype", EP_COLUMN_TEXT, EP, 0, F(combine_dtype)},
    {"row_bytes", EP_COLUMN_I64, EP, COMM, F(row_bytes)},
    {"skew", EP_COLUMN_TEXT, EP, EP, F(skew)},
    {"skew_achieved", EP_COLUMN_F64, EP, 0, F(skew_achieved)},
    {"placement", EP_COLUMN_TEXT, EP, 0, F(placement)},
    {"routing_id", EP_COLUMN_TEXT, EP, 0, F(routing_id)},
    {"router", EP_COLUMN_TEXT, EP, 0, F(router)},
    {"style", EP_COLUMN_TEXT, EP, 0, F(style)},
    {"capacity_rule", EP_COLUMN_TEXT, EP, 0, F(capacity_rule)},
    {"capacity_factor", EP_COLUMN_SIGNED, EP, 0, F(capacity_factor)},
    {"capacity_eval", EP_COLUMN_F64, EP, 0, F(capacity_eval)},
    {"capacity_align", EP_COLUMN_I64, EP, 0, F(capacity_align)},
    {"min_capacity", EP_COLUMN_I64, EP, 0, F(min_capacity)},
    {"capacity", EP_COLUMN_I64, EP, 0, F(capacity)},
    {"capacity_per", EP_COLUMN_TEXT, EP, 0, F(capacity_per)},
    {"drop", EP_COLUMN_TEXT, EP, 0, F(drop)},
    {"overflow", EP_COLUMN_TEXT, EP, 0, F(overflow)},
    {"pad", EP_COLUMN_FLAG, EP, 0, F(pad)},
    {"asked", EP_COLUMN_I64, EP, 0, F(asked)},
    {"kept", EP_COLUMN_I64, EP, 0, F(kept)},
    {"rerouted", EP_COLUMN_I64, EP, 0, F(rerouted)},
    {"dropped", EP_COLUMN_I64, EP, 0, F(dropped)},
    {"tokens_dropped", EP_COLUMN_I64, EP, 0, F(tokens_dropped)},
    {"tokens_lost", EP_COLUMN_I64, EP, 0, F(tokens_lost)},
    {"padded", EP_COLUMN_I64, EP, 0, F(padded)},
    {"buffer_policy", EP_COLUMN_TEXT, EP, 0, F(buffer_policy)},
    {"buffer_sized_by", EP_COLUMN_TEXT, EP, 0, F(buffer_sized_by)},
    {"buffer_peak_bytes", EP_COLUMN_I64, EP, 0, F(buffer_peak_bytes)},
    {"buffer_used_bytes", EP_COLUMN_I64, EP, 0, F(buffer_used_bytes)},
    {"buffer_waste_bytes", EP_COLUMN_I64, EP, 0, F(buffer_waste_bytes)},
    {"buffer_alloc_s", EP_COLUMN_F64, EP, 0, F(buffer_alloc_s)},
    {"phases", EP_COLUMN_LIST, EP, 0, LIST(phases, ep_record_phase, phase_columns)},
    {"check", EP_COLUMN_OBJECT, EP | LINKS | KERNELS, 0, PART(check, check_columns)},
    {"verified", EP_COLUMN_FLAG, EP | LINKS | KERNELS, 0, F(verified)},
    {"bw_bytes_per_s", EP_COLUMN_F64, 0, 0, F(bw_bytes_per_s)},
    {"bw_logical_bytes_per_s", EP_COLUMN_F64, EP, 0, F(bw_logical_bytes_per_s)},
    {"bw_time", EP_COLUMN_TEXT, EP, 0, F(bw_time)},
    {"byte_basis", EP_COLUMN_TEXT, EP, COMM, F(byte_basis)},
    {"padding_bytes", EP_COLUMN_I64, EP, 0, F(padding_bytes)},
    {"metadata_bytes", EP_COLUMN_I64, EP, 0, F(metadata_bytes)},
    {"bytes", EP_COLUMN_OBJECT, EP, COMM, PART(bytes, bytes_columns)},
    {"mean_out_bytes", EP_COLUMN_F64, EP, COMM, F(mean_out_bytes)},
    {"h_rank_bytes", EP_COLUMN_I64, EP, COMM, F(h_rank_bytes)},
    {"h_nic_bytes", EP_COLUMN_I64, EP, 0, F(h_nic_bytes)},
    {"h_node_bytes", EP_COLUMN_I64, EP, 0, F(h_node_bytes)},
    {"self_bytes_max", EP_COLUMN_I64, EP, 0, F(self_bytes_max)},
    {"exchange_steps", EP_COLUMN_TEXT, EP, 0, F(exchange_steps)},
    {"step_sum_bytes", EP_COLUMN_I64, EP, 0, F(step_sum_bytes)},
    {"step_port_bytes", EP_COLUMN_I64, EP, 0, F(step_port_bytes)},
    {"schedule_bytes", EP_COLUMN_I64, EP, 0, F(schedule_bytes)},
    {"messages_max", EP_COLUMN_I64, EP, COMM, F(messages_max)},
    {"messages_nonzero_max", EP_COLUMN_I64, EP, 0, F(messages_nonzero_max)},
    {"messages_uplink_max", EP_COLUMN_I64, EP, 0, F(messages_uplink_max)},
    {"message_hist", EP_COLUMN_LIST, EP, 0,
     LIST(message_hist, ep_record_message_bin, message_columns)},
    {"levels", EP_COLUMN_LIST, EP, 0, LIST(levels, ep_record_level, level_columns)},
    {"ports", EP_COLUMN_LIST, EP, 0, LIST(ports, ep_record_port, port_columns)},
    {"switch_lanes", EP_COLUMN_I64S, EP, 0, F(switch_lanes)},
    {"node_switch", EP_COLUMN_I64S, EP, 0, F(node_switch)},
    {"node_position", EP_COLUMN_I64S, EP, 0, F(node_position)},

    {"ffn", EP_COLUMN_I64, LAYER, LAYER, F(ffn)},
    {"shared_ffn", EP_COLUMN_I64, LAYER, LAYER, F(shared_ffn)},
    {"tp", EP_COLUMN_I64, LAYER, 0, F(tp)},
    {"dp", EP_COLUMN_I64, LAYER, 0, F(dp)},
    {"activation", EP_COLUMN_TEXT, LAYER, LAYER, F(activation)},
    {"backend", EP_COLUMN_TEXT, LAYER, LAYER, F(backend)},
    {"remedy", EP_COLUMN_TEXT, LAYER, 0, F(remedy)},
    {"rank_experts", EP_COLUMN_I64S, LAYER, 0, F(rank_experts)},
    {"expert_rows", EP_COLUMN_I64S, LAYER, 0, F(expert_rows)},
    {"compute_s", EP_COLUMN_F64S, LAYER, 0, F(compute_s)},
    {"wait_matrix_s", EP_COLUMN_F64S, LAYER, 0, F(wait_matrix_s)},
    {"straggler", EP_COLUMN_F64, LAYER, 0, F(straggler)},
    {"utilisation", EP_COLUMN_F64, LAYER, 0, F(utilisation)},
    {"move_over_compute", EP_COLUMN_F64, LAYER, 0, F(move_over_compute)},
    {"wait_over_compute", EP_COLUMN_F64, LAYER, 0, F(wait_over_compute)},
    {"tokens_per_s", EP_COLUMN_F64, LAYER, 0, F(tokens_per_s)},
    {"single_tokens_per_s", EP_COLUMN_F64, LAYER, 0, F(single_tokens_per_s)},
    {"efficiency", EP_COLUMN_F64, LAYER, 0, F(efficiency)},
    {"dense_s", EP_COLUMN_F64, LAYER, 0, F(dense_s)},
    {"clock_error_s", EP_COLUMN_F64, LAYER, 0, F(clock_error_s)},
    {"overlap", EP_COLUMN_LIST, LAYER, 0, LIST(overlap, ep_record_overlap, overlap_columns)},

    {"level", EP_COLUMN_TEXT, LINKS, LINKS, F(level)},
    {"pair", EP_COLUMN_I64S, LINKS, 0, F(pair)},
    {"port", EP_COLUMN_TEXT, LINKS, 0, F(port)},
    {"pattern", EP_COLUMN_TEXT, LINKS, 0, F(pattern)},
    {"size_bytes", EP_COLUMN_I64, LINKS, LINKS, F(size_bytes)},
    {"concurrent_pairs", EP_COLUMN_I64, LINKS, LINKS, F(concurrent_pairs)},

    {"kernel", EP_COLUMN_TEXT, KERNELS, KERNELS, F(kernel)},
    {"ranks_active", EP_COLUMN_I64, KERNELS, 0, F(ranks_active)},
    {"working_set_bytes", EP_COLUMN_I64, KERNELS, 0, F(working_set_bytes)},
    {"moved_bytes", EP_COLUMN_F64, KERNELS, 0, F(moved_bytes)},
    {"flops_per_s", EP_COLUMN_F64, KERNELS, 0, F(flops_per_s)},
    {"pairs_per_s", EP_COLUMN_F64, KERNELS, 0, F(pairs_per_s)},
    {"gemm", EP_COLUMN_OBJECT, KERNELS, 0, PART(gemm, gemm_columns)},
    {.name = NULL},
};
/* clang-format on */

const struct ep_column *ep_record_columns(void)
{
    return record_columns;
}
