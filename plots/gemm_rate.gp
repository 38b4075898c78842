# SPDX-License-Identifier: Apache-2.0
# GEMM rate against tokens per expert, under the roofline of each dtype.
ep_top = ep_head + 21 * (|ep_series| + ep_num_roofs) + 16
ep_bottom = ep_top + 330
ep_h = ep_bottom + 66
eval ep_open
eval ep_place
set key at screen sx(4),sy(ep_head) top left
set logscale x 2
set logscale y 10
set format x '%.0f'
set format y '%g'
set xlabel ep_x_label offset 0,0.7
set yrange [ep_y_min:ep_y_max]
set offsets graph 0.05, graph 0.05, 0, 0
set style line 201 lc rgb '#000000' lw 2.6 dt 1
set style line 202 lc rgb '#8a8a8a' lw 2.6 dt (10,4)
set style line 203 lc rgb '#000000' lw 2.6 dt (2,3)
set style line 204 lc rgb '#8a8a8a' lw 2.6 dt (2,3)
file = ep_name.'.tsv'
roof(i, x) = column('roof') == i ? x : NaN
plot for [r = 1:ep_num_roofs] file using (roof(r, column('tokens_per_expert'))):(column('roofline_flops_per_s') / 1e9) with lines ls 200 + r notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('tokens_per_expert'))):(column('flops_per_s') / 1e9) with lines lt i lw 1.6 notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('tokens_per_expert'))):(column('low_flops_per_s') / 1e9):(0):(column('high_flops_per_s') / 1e9 - column('low_flops_per_s') / 1e9) with vectors heads size screen 0.009,90 lc i lw 1.4 dt 1 notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('tokens_per_expert'))):(column('flops_per_s') / 1e9) with points lt i notitle, \
     for [i = 1:|ep_series|] NaN with linespoints lt i title ep_series[i], \
     for [r = 1:ep_num_roofs] NaN with lines ls 200 + r title ep_roof[r]
